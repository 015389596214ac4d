package localpg

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestScratchTakesTheFirstPlaceThatWillDo(t *testing.T) {
	t.Parallel()
	good := openDir(t)
	long := filepath.Join(openDir(t), strings.Repeat("x", 60))
	squatted := openDir(t)
	if err := os.Chmod(squatted, 0o777); err != nil {
		t.Fatal(err)
	}
	// Laid there by somebody else, who could have put a cluster of his in it.
	theirs := filepath.Join(squatted, filepath.Base(mustScratch(t, good)))
	if err := os.Mkdir(theirs, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(theirs, 0o777); err != nil {
		t.Fatal(err)
	}
	who, err := serverAccount()
	if err != nil {
		t.Fatal(err)
	}
	got, err := scratch(who, 1, "/nonexistent", long, squatted, good)
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Dir(got) != good {
		t.Errorf("got %s, want one in %s", got, good)
	}
	if _, err := scratch(who, 1<<60, good); err == nil || !strings.Contains(err.Error(), "MB free") {
		t.Errorf("a place that is too small: %v", err)
	}
}

func mustScratch(t *testing.T, place string) string {
	t.Helper()
	who, err := serverAccount()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := scratch(who, 1, place)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestReaches(t *testing.T) {
	t.Parallel()
	top := openDir(t)
	closed := filepath.Join(top, "closed")
	for _, dir := range []string{closed, filepath.Join(closed, "in")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	us := account{uid: os.Geteuid(), gid: os.Getegid()}
	them := account{uid: os.Geteuid() + 1, gid: os.Getegid() + 1}
	for _, tc := range []struct {
		who        account
		path, want string
	}{
		{us, filepath.Join(closed, "in"), ""},
		{them, top, ""},
		{them, filepath.Join(closed, "in"), closed},
		{us, filepath.Join(top, "missing"), filepath.Join(top, "missing")},
	} {
		if got := tc.who.reaches(tc.path); got != tc.want {
			t.Errorf("user %d reaches(%s) = %q, want %q", tc.who.uid, tc.path, got, tc.want)
		}
	}
}
