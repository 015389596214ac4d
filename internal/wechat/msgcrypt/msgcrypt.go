// Package msgcrypt is WeChat's message encryption (platform.md §7.2): the signature of a push, the
// cipher around its body, and the small XML envelope that carries both. It exists on its own because
// the gateway, which receives pushes, and the sandbox, which sends them, must agree with WeChat's
// published vectors and not merely with each other; so it imports nothing of ours.
//
// It must never decrypt on behalf of a caller who has not checked the signature (that would be a
// padding oracle: call VerifySignature first), never print a key, and never judge a timestamp: a late
// retry of WeChat is a good push.
package msgcrypt

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha1" // #nosec G505 -- WeChat's wire format
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
)

// Why a ciphertext was refused. The text is safe to log; none of it should reach the sender, who must
// not be able to tell the reasons apart.
var (
	ErrBase64    = errors.New("msgcrypt: ciphertext is not base64")
	ErrBlockSize = errors.New("msgcrypt: ciphertext is not a whole number of blocks")
	ErrPadding   = errors.New("msgcrypt: padding is invalid")
	ErrLength    = errors.New("msgcrypt: message length is out of bounds")
	ErrReceiveID = errors.New("msgcrypt: message is for another appid")
)

const (
	padBlock   = 32        // WeChat pads to 32 bytes, although the cipher's block is 16
	headerSize = 16 + 4    // random, then the message length
	minSize    = padBlock  // the shortest ciphertext that a sender can produce
	sumSize    = sha1.Size // of a signature, decoded
	ivSize     = aes.BlockSize
)

// Signature is msg_signature: the hex SHA-1 of the four values, sorted and joined. With an empty
// encrypt it is the plain `signature`, which says nothing about the body.
func Signature(token, timestamp, nonce, encrypt string) string {
	sum := digest(token, timestamp, nonce, encrypt)
	return hex.EncodeToString(sum[:])
}

// VerifySignature compares got with the signature of the other values in constant time. Upper-case
// hex passes, since the comparison is on the 20 bytes.
func VerifySignature(got, token, timestamp, nonce, encrypt string) bool {
	if len(got) != hex.EncodedLen(sumSize) {
		return false
	}
	var sent [sumSize]byte
	if _, err := hex.Decode(sent[:], []byte(got)); err != nil {
		return false
	}
	want := digest(token, timestamp, nonce, encrypt)
	return subtle.ConstantTimeCompare(sent[:], want[:]) == 1
}

func digest(token, timestamp, nonce, encrypt string) [sumSize]byte {
	parts := [4]string{token, timestamp, nonce, encrypt}
	slices.Sort(parts[:])
	return sha1.Sum([]byte(strings.Join(parts[:], ""))) // #nosec G401 -- WeChat's wire format
}

// Decrypt opens the base64 text of an Encrypt element and returns the message, byte for byte. The
// appid at the end of the plaintext must be receiveID: for a third-party platform that is the
// component's appid, for component events and merchants' messages alike (platform.md §7.1).
// Errors: ErrBase64, ErrBlockSize, ErrPadding, ErrLength, ErrReceiveID, and ErrKey for the zero Key.
func (k Key) Decrypt(encrypt, receiveID string) ([]byte, error) {
	if k.block == nil {
		return nil, ErrKey
	}
	buf, err := base64.StdEncoding.DecodeString(encrypt)
	if err != nil {
		return nil, ErrBase64
	}
	if len(buf) < minSize || len(buf)%aes.BlockSize != 0 {
		return nil, ErrBlockSize
	}
	cipher.NewCBCDecrypter(k.block, k.iv[:]).CryptBlocks(buf, buf)

	pad := int(buf[len(buf)-1])
	if pad < 1 || pad > padBlock || pad > len(buf) {
		return nil, ErrPadding
	}
	for _, b := range buf[len(buf)-pad:] {
		if int(b) != pad {
			return nil, ErrPadding
		}
	}
	buf = buf[:len(buf)-pad]
	if len(buf) < headerSize {
		return nil, ErrLength
	}
	size := binary.BigEndian.Uint32(buf[headerSize-4 : headerSize])
	rest := buf[headerSize:]
	if uint64(size) > uint64(len(rest)) {
		return nil, ErrLength
	}
	if string(rest[size:]) != receiveID {
		return nil, ErrReceiveID
	}
	return rest[:size:size], nil
}

// Encrypt is the inverse of Decrypt. The 16 random bytes are the caller's, so that published vectors
// can be reproduced; a sender takes fresh ones each time. It panics on the zero Key.
func (k Key) Encrypt(random [16]byte, msg []byte, receiveID string) string {
	size := headerSize + len(msg) + len(receiveID)
	pad := padBlock - size%padBlock
	buf := make([]byte, 0, size+pad)
	buf = append(buf, random[:]...)
	buf = binary.BigEndian.AppendUint32(buf, uint32(len(msg))) // #nosec G115 -- a push is far below 4 GiB
	buf = append(buf, msg...)
	buf = append(buf, receiveID...)
	for range pad {
		buf = append(buf, byte(pad))
	}
	cipher.NewCBCEncrypter(k.block, k.iv[:]).CryptBlocks(buf, buf)
	return base64.StdEncoding.EncodeToString(buf)
}
