package msgcrypt_test

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/mendian/mendian/internal/wechat/msgcrypt"
)

type vector struct {
	ID, Kind, Token, Timestamp, Nonce, Encrypt, Plaintext, Signature, Envelope string

	Key          string `json:"encoding_aes_key"`
	ReceiveID    string `json:"receive_id"`
	MsgSignature string `json:"msg_signature"`
	Random       string `json:"random16_hex"`
}

type vectorFile struct {
	Vectors         []vector
	PlainSignatures []struct{ Token, Timestamp, Nonce, Signature string } `json:"plain_signatures"`
	NegativeCases   []struct{ Name, Input string }                        `json:"negative_cases"`
}

func vectors(t testing.TB) vectorFile {
	t.Helper()
	raw, err := os.ReadFile("testdata/crypto-vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var f vectorFile
	if err := json.Unmarshal(raw, &f); err != nil {
		t.Fatal(err)
	}
	if len(f.Vectors) != 8 || len(f.PlainSignatures) != 2 || len(f.NegativeCases) != 8 {
		t.Fatalf("vectors = %d, %d, %d, want 8, 2, 8", len(f.Vectors), len(f.PlainSignatures), len(f.NegativeCases))
	}
	return f
}

func mustKey(t testing.TB, s string) msgcrypt.Key {
	t.Helper()
	k, err := msgcrypt.ParseKey(s)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestVectors(t *testing.T) {
	t.Parallel()
	for _, v := range vectors(t).Vectors {
		t.Run(v.ID, func(t *testing.T) {
			t.Parallel()
			k := mustKey(t, v.Key)
			got, err := k.Decrypt(v.Encrypt, v.ReceiveID)
			if err != nil || string(got) != v.Plaintext {
				t.Fatalf("Decrypt() = %q, %v, want %q", got, err, v.Plaintext)
			}
			// A vector carries its own random bytes, so each one, not only those published as
			// deterministic, has exactly one ciphertext.
			random, err := hex.DecodeString(v.Random)
			if err != nil {
				t.Fatal(err)
			}
			if got := k.Encrypt([16]byte(random), []byte(v.Plaintext), v.ReceiveID); got != v.Encrypt {
				t.Errorf("Encrypt() = %s, want %s", got, v.Encrypt)
			}
			if _, err := k.Decrypt(v.Encrypt, "wxffffffffffffffff"); !errors.Is(err, msgcrypt.ErrReceiveID) {
				t.Errorf("Decrypt(other appid) = %v, want %v", err, msgcrypt.ErrReceiveID)
			}
			if v.MsgSignature != "" {
				if got := msgcrypt.Signature(v.Token, v.Timestamp, v.Nonce, v.Encrypt); got != v.MsgSignature {
					t.Errorf("Signature() = %s, want %s", got, v.MsgSignature)
				}
				if !msgcrypt.VerifySignature(strings.ToUpper(v.MsgSignature), v.Token, v.Timestamp, v.Nonce, v.Encrypt) {
					t.Error("VerifySignature() = false")
				}
			}
			if v.Signature != "" {
				if got := msgcrypt.Signature(v.Token, v.Timestamp, v.Nonce, ""); got != v.Signature {
					t.Errorf("plain Signature() = %s, want %s", got, v.Signature)
				}
				if msgcrypt.VerifySignature(v.Signature, v.Token, v.Timestamp, v.Nonce, v.Encrypt) {
					t.Error("the plain signature passed for msg_signature")
				}
			}
			if v.Envelope != "" {
				env, err := msgcrypt.ParseEnvelope([]byte(v.Envelope))
				if want := (msgcrypt.Envelope{AppID: v.ReceiveID, Encrypt: v.Encrypt}); err != nil || env != want {
					t.Errorf("ParseEnvelope() = %+v, %v, want %+v", env, err, want)
				}
			}
			if strings.HasPrefix(v.Plaintext, "<xml>") && !strings.Contains(v.Plaintext, "demo_resp") {
				m, err := msgcrypt.ParseMessage(got)
				if err != nil || m.Get("CreateTime") == "" {
					t.Errorf("ParseMessage() = %v, %v", m, err)
				}
			}
		})
	}
}

func TestPlainSignatures(t *testing.T) {
	t.Parallel()
	for _, v := range vectors(t).PlainSignatures {
		if got := msgcrypt.Signature(v.Token, v.Timestamp, v.Nonce, ""); got != v.Signature {
			t.Errorf("Signature(%s) = %s, want %s", v.Timestamp, got, v.Signature)
		}
	}
}

// The negative cases of the vector file, by name, so that a case added to the file fails here.
func TestNegativeVectors(t *testing.T) {
	t.Parallel()
	f := vectors(t)
	v := f.Vectors[2] // easywechat-decrypt-1, the source of two of the cases
	k := mustKey(t, v.Key)
	for _, c := range f.NegativeCases {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			var err, want error
			switch c.Name {
			case "wrong signature":
				for _, s := range []string{"invalid-signature", "", strings.Repeat("0", 40), strings.Repeat("z", 40), v.MsgSignature[:39], v.MsgSignature + "0"} {
					if msgcrypt.VerifySignature(s, v.Token, v.Timestamp, v.Nonce, v.Encrypt) {
						t.Errorf("VerifySignature(%q) = true", s)
					}
				}
				return
			case "wrong receive id":
				_, err = k.Decrypt(v.Encrypt, "invalid appid")
				want = msgcrypt.ErrReceiveID
			case "key length != 43":
				for _, s := range []string{"", v.Key[:42], v.Key + "A", v.Key[:42] + "\n", v.Key[:42] + "!"} {
					if _, err := msgcrypt.ParseKey(s); !errors.Is(err, msgcrypt.ErrKey) {
						t.Errorf("ParseKey(%q) = %v, want %v", s, err, msgcrypt.ErrKey)
					}
				}
				return
			case "ciphertext not base64":
				_, err = k.Decrypt(c.Input, v.ReceiveID)
				want = msgcrypt.ErrBase64
			case "ciphertext length not multiple of 16", "one zero block / bad padding":
				_, err = k.Decrypt(c.Input, v.ReceiveID)
				want = msgcrypt.ErrBlockSize
			case "DOCTYPE in envelope":
				_, err = msgcrypt.ParseEnvelope([]byte(c.Input))
				want = msgcrypt.ErrXML
			case "key rotation":
				other := mustKey(t, strings.Repeat("A", 43))
				if _, err := other.Decrypt(v.Encrypt, v.ReceiveID); err == nil {
					t.Error("another key opened the message")
				}
				if got, err := k.Decrypt(v.Encrypt, v.ReceiveID); err != nil || string(got) != v.Plaintext {
					t.Errorf("Decrypt(previous key) = %q, %v", got, err)
				}
				return
			default:
				t.Fatal("no check for this case")
			}
			if !errors.Is(err, want) {
				t.Errorf("error = %v, want %v", err, want)
			}
		})
	}
}

// security.md, attack 62.
func TestDecryptRefusals(t *testing.T) {
	t.Parallel()
	k := mustKey(t, strings.Repeat("A", 43))
	const appid = "wx134c8103faa5a59e"
	sealed := func(size uint32, tail string, pad byte, padLen int) string {
		plain := make([]byte, 16)
		plain = binary.BigEndian.AppendUint32(plain, size)
		plain = append(plain, tail...)
		for range padLen {
			plain = append(plain, pad)
		}
		return encryptRaw(t, plain)
	}
	tests := []struct {
		name, in string
		want     error
	}{
		{"empty", "", msgcrypt.ErrBlockSize},
		{"one block", base64.StdEncoding.EncodeToString(make([]byte, 16)), msgcrypt.ErrBlockSize},
		{"33 bytes", base64.StdEncoding.EncodeToString(make([]byte, 33)), msgcrypt.ErrBlockSize},
		{"url alphabet", strings.Repeat("-_", 22), msgcrypt.ErrBase64},
		{"padding 0", sealed(0, appid, 0, 26), msgcrypt.ErrPadding},
		{"padding 33", sealed(0, appid, 33, 26), msgcrypt.ErrPadding},
		{"padding not uniform", sealed(0, appid+"\x01", 25, 25)[:64] + sealed(0, appid+"\x01", 26, 25)[64:], msgcrypt.ErrPadding},
		{"length 0xFFFFFFFF", sealed(0xFFFFFFFF, appid, 26, 26), msgcrypt.ErrLength},
		{"length one too long", sealed(19, appid, 26, 26), msgcrypt.ErrLength},
		{"length eats the appid", sealed(18, appid, 26, 26), msgcrypt.ErrReceiveID},
		{"no header", encryptRaw(t, append(make([]byte, 16), []byte(strings.Repeat("\x10", 16))...)), msgcrypt.ErrLength},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got, err := k.Decrypt(tt.in, appid); !errors.Is(err, tt.want) {
				t.Errorf("Decrypt() = %q, %v, want %v", got, err, tt.want)
			}
		})
	}
	if got, err := k.Decrypt(sealed(0, appid, 26, 26), appid); err != nil || len(got) != 0 {
		t.Errorf("Decrypt(empty message) = %q, %v, want none", got, err)
	}
	if _, err := (msgcrypt.Key{}).Decrypt("", ""); !errors.Is(err, msgcrypt.ErrKey) {
		t.Errorf("zero key: %v, want %v", err, msgcrypt.ErrKey)
	}
}

func TestKeyIsNeverPrinted(t *testing.T) {
	t.Parallel()
	k := mustKey(t, "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG")
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "key", k)
	inJSON, err := json.Marshal(map[string]any{"k": k})
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if got := fmt.Sprintf(verb, k); got != "[REDACTED]" {
			t.Errorf("Sprintf(%s) = %s", verb, got)
		}
	}
	for _, s := range []string{k.String(), k.GoString(), string(inJSON), log.String()} {
		if !strings.Contains(s, "[REDACTED]") {
			t.Errorf("printed as %s", s)
		}
	}
}

func BenchmarkDecrypt(b *testing.B) {
	for _, v := range vectors(b).Vectors {
		b.Run(v.ID, func(b *testing.B) {
			k := mustKey(b, v.Key)
			b.SetBytes(int64(len(v.Encrypt)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := k.Decrypt(v.Encrypt, v.ReceiveID); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPush(b *testing.B) {
	v := vectors(b).Vectors[3]
	k := mustKey(b, v.Key)
	b.ReportAllocs()
	for b.Loop() {
		env, err := msgcrypt.ParseEnvelope([]byte(v.Envelope))
		if err != nil || !msgcrypt.VerifySignature(v.MsgSignature, v.Token, v.Timestamp, v.Nonce, env.Encrypt) {
			b.Fatal(err)
		}
		msg, err := k.Decrypt(env.Encrypt, v.ReceiveID)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := msgcrypt.ParseMessage(msg); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzDecrypt(f *testing.F) {
	file := vectors(f)
	for _, v := range file.Vectors {
		f.Add(v.Encrypt, v.Key, v.ReceiveID)
	}
	for _, c := range file.NegativeCases {
		f.Add(c.Input, strings.Repeat("A", 43), "wx134c8103faa5a59e")
	}
	f.Fuzz(func(t *testing.T, encrypt, key, receiveID string) {
		k, err := msgcrypt.ParseKey(key)
		if err != nil {
			return
		}
		msg, err := k.Decrypt(encrypt, receiveID)
		if err != nil {
			return
		}
		again, err := k.Decrypt(k.Encrypt([16]byte{}, msg, receiveID), receiveID)
		if err != nil || string(again) != string(msg) {
			t.Errorf("round trip = %q, %v, want %q", again, err, msg)
		}
	})
}
