package secret

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

func roles(k *Keyset) (out []Role) {
	for _, i := range k.Keys() {
		out = append(out, i.Role)
	}
	return out
}

func noted(uint32) error { return nil }

// A key is added, seals, and the one before it is taken out; at no step is what
// was sealed before unreadable, but after the last.
func TestRotation(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keyset.json")
	if err := CreateKeyset(path); err != nil {
		t.Fatal(err)
	}
	k, err := OpenKeyset(path)
	if err != nil {
		t.Fatal(err)
	}
	home := Place{Table: "t", Column: "c_ct", Tenant: uuid.New()}
	first := k.SealsWith()
	sealed, err := k.Seal(home, []byte("before"))
	if err != nil {
		t.Fatal(err)
	}
	if id, ok := KeyOf(sealed); id != first || !ok {
		t.Errorf("KeyOf = %d, %t, want %d", id, ok, first)
	}
	reload := func(want ...Role) {
		t.Helper()
		if changed, err := k.Reload(); !changed || err != nil {
			t.Fatalf("Reload = %t, %v", changed, err)
		}
		if changed, err := k.Reload(); changed || err != nil {
			t.Errorf("Reload of the same file = %t, %v", changed, err)
		}
		if diff := cmp.Diff(want, roles(k)); diff != "" {
			t.Fatalf("roles (-want +got):\n%s", diff)
		}
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", fi.Mode(), err)
		}
	}
	next, err := AddKey(path, noted)
	if err != nil {
		t.Fatal(err)
	}
	reload(RoleSeals, RoleNext)
	if k.SealsWith() != first {
		t.Error("a key that was only added seals")
	}
	if err := Promote(path, next); err != nil {
		t.Fatal(err)
	}
	reload(RoleOld, RoleSeals)
	anew, err := k.Seal(home, []byte("after"))
	if err != nil {
		t.Fatal(err)
	}
	if id, _ := KeyOf(anew); id != next {
		t.Errorf("sealed with %d, want %d", id, next)
	}
	if plain, err := k.Open(home, sealed); string(plain) != "before" || err != nil {
		t.Errorf("what the old key sealed = %q, %v", plain, err)
	}
	if _, err := RemoveKey(path, next); err == nil {
		t.Error("the key that seals was removed")
	}
	kept, err := RemoveKey(path, first)
	if err != nil {
		t.Fatal(err)
	}
	reload(RoleSeals)
	if _, err := k.Open(home, sealed); !errors.Is(err, ErrSealed) {
		t.Errorf("opened what a removed key sealed: %v", err)
	}
	if plain, err := k.Open(home, anew); string(plain) != "after" || err != nil {
		t.Errorf("what the new key sealed = %q, %v", plain, err)
	}
	former, err := OpenKeyset(kept)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := former.Open(home, sealed); string(plain) != "before" || err != nil {
		t.Errorf("with the file that was kept: %q, %v", plain, err)
	}
	if fi, err := os.Stat(kept); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("kept with mode %v, %v", fi.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".keyset-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// What can't be noted isn't done.
func TestAddKeyNotes(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keyset.json")
	if err := CreateKeyset(path); err != nil {
		t.Fatal(err)
	}
	var told uint32
	failed := errors.New("not noted")
	if _, err := AddKey(path, func(id uint32) error { told = id; return failed }); !errors.Is(err, failed) || told == 0 {
		t.Errorf("AddKey = %v, note was told %d", err, told)
	}
	if k, err := OpenKeyset(path); err != nil || len(k.Keys()) != 1 {
		t.Errorf("the file was changed: %v", err)
	}
}

// A file that can't be used leaves what was loaded in place.
func TestReloadRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, foreign := filepath.Join(dir, "keyset.json"), filepath.Join(dir, "foreign.json")
	for _, p := range []string{path, foreign} {
		if err := CreateKeyset(p); err != nil {
			t.Fatal(err)
		}
	}
	k, err := OpenKeyset(path)
	if err != nil {
		t.Fatal(err)
	}
	home := Place{Table: "t", Column: "c_ct", Tenant: uuid.New()}
	sealed, err := k.Seal(home, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(foreign)
	if err != nil {
		t.Fatal(err)
	}
	for what, content := range map[string][]byte{"another keyset": other, "half a file": other[:len(other)/2], "an empty file": nil} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if changed, err := k.Reload(); changed || err == nil || strings.Contains(err.Error(), "keyData") {
			t.Errorf("%s: Reload = %t, %v", what, changed, err)
		}
		if _, err := k.Open(home, sealed); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if changed, err := k.Reload(); changed || !errors.Is(err, ErrNoKeyset) {
		t.Errorf("without the file: %t, %v", changed, err)
	}
}

// No change is lost to another one, and a reader never sees half a file.
func TestRewriteAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, link := filepath.Join(dir, "keyset.json"), filepath.Join(dir, "link.json")
	if err := CreateKeyset(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path, link); err != nil { // as Kubernetes mounts files
		t.Fatal(err)
	}
	k, err := OpenKeyset(link)
	if err != nil {
		t.Fatal(err)
	}
	const n = 8
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if _, err := AddKey(link, noted); err != nil {
				t.Error(err)
			}
			if _, err := k.Reload(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if _, err := k.Reload(); err != nil || len(k.Keys()) != n+1 {
		t.Errorf("%d keys, %v, want %d", len(k.Keys()), err, n+1)
	}
	if fi, err := os.Lstat(link); err != nil || fi.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v, %v", fi.Mode(), err)
	}
}
