package secret

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/google/uuid"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/core/cryptofmt"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// A Keyset seals and opens what lies at rest. Its file is the one secret that
// the database and the spool need besides themselves: keep it in a secret
// store or a file of mode 0600, and back it up apart from them. It is safe for
// concurrent use, also with Reload.
type Keyset struct {
	path    string
	current atomic.Pointer[keys]
}

// keys is what the file held when it was read.
type keys struct {
	file   [sha256.Size]byte
	handle *keyset.Handle
	aead   tink.AEAD
	seals  uint32 // a key's id: to ask the handle costs a copy of all it says, and each record of the spool asks
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
	b, err := encode(handle)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

func encode(handle *keyset.Handle) ([]byte, error) {
	var buf bytes.Buffer
	err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&buf))
	return buf.Bytes(), err
}

// ErrNoKeyset is returned by OpenKeyset when there is no file.
var ErrNoKeyset = errors.New("no keyset file: make one with `gateway keyset create`")

// OpenKeyset reads the keyset at path. Its errors never quote the file.
func OpenKeyset(path string) (*Keyset, error) {
	k := &Keyset{path: path}
	read, err := readKeys(path)
	if err != nil {
		return nil, err
	}
	k.current.Store(read)
	return k, nil
}

func readKeys(path string) (*keys, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", path, ErrNoKeyset)
	}
	if err != nil {
		return nil, err
	}
	handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(b)))
	if err != nil {
		return nil, fmt.Errorf("%s: not a keyset", path)
	}
	primitive, err := aead.New(handle)
	if err != nil {
		return nil, fmt.Errorf("%s: not a keyset for authenticated encryption", path)
	}
	return &keys{sha256.Sum256(b), handle, primitive, handle.KeysetInfo().GetPrimaryKeyId()}, nil
}

// Reload takes up what the file holds now and reports whether that is something
// else. A file that can't be read, or that lacks the key which seals here, is
// refused: what was sealed a moment ago could not be opened any more.
func (k *Keyset) Reload() (changed bool, err error) {
	was := k.current.Load()
	now, err := readKeys(k.path)
	if err != nil || now.file == was.file {
		return false, err
	}
	if !HasKey(now.info(), was.seals) {
		return false, fmt.Errorf("%s: not taken up: it lacks key %d, which seals here", k.path, was.seals)
	}
	k.current.Store(now)
	return true, nil
}

// A Role is what a key of a keyset is there for.
type Role string

// One key seals. A next key opens and doesn't seal yet, so that every process
// knows it in time; an old key has sealed, and opens what is left of that.
const (
	RoleNext  Role = "next"
	RoleSeals Role = "seals"
	RoleOld   Role = "old"
)

// KeyInfo describes a key without its secret.
type KeyInfo struct {
	ID      uint32 `json:"id"`
	Primary bool   `json:"primary"`
	Status  string `json:"status"`
	Role    Role   `json:"role"`
}

// Keys lists the keyset's keys in the order in which they were added.
func (k *Keyset) Keys() []KeyInfo { return k.current.Load().info() }

// SealsWith is the id of the key that seals.
func (k *Keyset) SealsWith() uint32 { return k.current.Load().seals }

// info tells roles by the order: keys are added at the end, and each seals once.
func (k *keys) info() []KeyInfo {
	role := RoleOld
	var out []KeyInfo
	for _, key := range k.handle.KeysetInfo().GetKeyInfo() {
		i := KeyInfo{ID: key.GetKeyId(), Primary: key.GetKeyId() == k.seals, Status: strings.ToLower(key.GetStatus().String()), Role: role}
		if i.Primary {
			i.Role, role = RoleSeals, RoleNext
		}
		out = append(out, i)
	}
	return out
}

// KeyOf tells by which key a ciphertext was sealed. ok is false for bytes that
// no keyset made.
func KeyOf(ciphertext []byte) (id uint32, ok bool) {
	if len(ciphertext) < cryptofmt.TinkPrefixSize || ciphertext[0] != cryptofmt.TinkStartByte {
		return 0, false
	}
	return binary.BigEndian.Uint32(ciphertext[1:]), true
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
	return k.current.Load().aead.Encrypt(plaintext, p.associated())
}

// Open decrypts what Seal made for the same Place, or returns ErrSealed.
func (k *Keyset) Open(p Place, ciphertext []byte) ([]byte, error) {
	plain, err := k.current.Load().aead.Decrypt(ciphertext, p.associated())
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
	return k.current.Load().aead.Encrypt(plaintext, aad)
}

// OpenFor decrypts what SealFor made for the same aad, or returns ErrSealed.
func (k *Keyset) OpenFor(ciphertext, aad []byte) ([]byte, error) {
	plain, err := k.current.Load().aead.Decrypt(ciphertext, aad)
	if err != nil {
		return nil, ErrSealed
	}
	return plain, nil
}
