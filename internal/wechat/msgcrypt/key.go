package msgcrypt

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// ErrKey refuses an EncodingAESKey, or the zero Key.
var ErrKey = errors.New("msgcrypt: EncodingAESKey must be 43 base64 characters")

const redacted = "[REDACTED]"

// Key is a parsed EncodingAESKey. Every way of printing it gives [REDACTED]. It is safe for
// concurrent use.
type Key struct {
	block cipher.Block
	iv    [ivSize]byte
}

// ParseKey reads the 43 characters that the console shows. Keys that end in a character with spare
// bits set are in use, WeChat's own samples among them, so the last character is not held to
// canonical base64.
func ParseKey(encodingAESKey string) (Key, error) {
	if len(encodingAESKey) != 43 {
		return Key{}, ErrKey
	}
	raw, err := base64.StdEncoding.DecodeString(encodingAESKey + "=")
	if err != nil || len(raw) != 32 {
		return Key{}, ErrKey
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		return Key{}, ErrKey
	}
	return Key{block: block, iv: [ivSize]byte(raw[:ivSize])}, nil
}

// String hides the key.
func (Key) String() string { return redacted }

// GoString hides the key from %#v.
func (Key) GoString() string { return redacted }

// LogValue hides the key from slog.
func (Key) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON hides the key.
func (Key) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// Format hides the key from every verb, %x and %#v included.
func (Key) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }
