package secret

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// A Keyset seals and opens what lies at rest. Its file is the one secret that
// the database and the spool need besides themselves: keep it in a secret
// store or a file of mode 0600, and back it up apart from them.
type Keyset struct {
	handle *keyset.Handle
	aead   tink.AEAD
}

// ErrSealed is returned when a ciphertext doesn't open: it was altered, it was
// sealed for another place, or by a key that this keyset no longer has.
var ErrSealed = errors.New("can't be opened here: altered, moved from another row, or sealed by a key this keyset lacks")

// CreateKeyset writes a new keyset with one AES-256-GCM key to path, mode
// 0600. It refuses to overwrite a file.
func CreateKeyset(path string) error {
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return err
	}
	var buf bytes.Buffer
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&buf)); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(buf.Bytes())
	return errors.Join(err, f.Sync(), f.Close())
}

// ErrNoKeyset is returned by OpenKeyset when there is no file.
var ErrNoKeyset = errors.New("no keyset file: make one with `gateway keyset create`")

// OpenKeyset reads the keyset at path. Its errors never quote the file.
func OpenKeyset(path string) (*Keyset, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", path, ErrNoKeyset)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(f))
	if err != nil {
		return nil, fmt.Errorf("%s: not a keyset", path)
	}
	primitive, err := aead.New(handle)
	if err != nil {
		return nil, fmt.Errorf("%s: not a keyset for authenticated encryption", path)
	}
	return &Keyset{handle: handle, aead: primitive}, nil
}

// KeyInfo describes a key without its secret.
type KeyInfo struct {
	ID      uint32 `json:"id"`
	Primary bool   `json:"primary"`
	Status  string `json:"status"`
}

// Keys lists the keyset's keys.
func (k *Keyset) Keys() []KeyInfo {
	info := k.handle.KeysetInfo()
	var out []KeyInfo
	for _, key := range info.GetKeyInfo() {
		out = append(out, KeyInfo{ID: key.GetKeyId(), Primary: key.GetKeyId() == info.GetPrimaryKeyId(), Status: strings.ToLower(key.GetStatus().String())})
	}
	return out
}

// A Place is where a ciphertext lies. It is bound into the seal, so that one
// moved to another column, tenant, account or row doesn't open.
type Place struct {
	Table, Column string
	Tenant        uuid.UUID
	AppID         string // empty where no account is concerned
	Row           string // the row's id; empty where the tenant is the key
}

func (p Place) associated() []byte {
	return []byte("v1|" + p.Table + "|" + p.Column + "|" + p.Tenant.String() + "|" + p.AppID + "|" + p.Row)
}

// Seal encrypts plaintext for p. The result starts with the id of its key.
func (k *Keyset) Seal(p Place, plaintext []byte) ([]byte, error) {
	return k.aead.Encrypt(plaintext, p.associated())
}

// Open decrypts what Seal made for the same Place, or returns ErrSealed.
func (k *Keyset) Open(p Place, ciphertext []byte) ([]byte, error) {
	plain, err := k.aead.Decrypt(ciphertext, p.associated())
	if err != nil {
		return nil, fmt.Errorf("%s.%s: %w", p.Table, p.Column, ErrSealed)
	}
	return plain, nil
}

// SealText and OpenText are Seal and Open for a Text.
func (k *Keyset) SealText(p Place, t Text) ([]byte, error) { return k.Seal(p, []byte(t.s)) }

// OpenText is Open for what SealText made.
func (k *Keyset) OpenText(p Place, ciphertext []byte) (Text, error) {
	b, err := k.Open(p, ciphertext)
	return Text{string(b)}, err
}

// SealFor and OpenFor are for what lies at no place of ours, such as a cursor
// that a caller keeps: aad says what it belongs to.
func (k *Keyset) SealFor(plaintext, aad []byte) ([]byte, error) {
	return k.aead.Encrypt(plaintext, aad)
}

// OpenFor decrypts what SealFor made for the same aad, or returns ErrSealed.
func (k *Keyset) OpenFor(ciphertext, aad []byte) ([]byte, error) {
	plain, err := k.aead.Decrypt(ciphertext, aad)
	if err != nil {
		return nil, ErrSealed
	}
	return plain, nil
}
