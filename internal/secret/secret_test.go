package secret

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
)

func TestTextNeverPrints(t *testing.T) {
	t.Parallel()
	s := NewText("CANARY")
	type holder struct{ S Text }
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "s", s, "h", holder{s})
	js, err := json.Marshal(holder{s})
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range []string{
		fmt.Sprint(s), fmt.Sprintf("%s %v %+v %#v %q %x", s, s, s, s, s, s),
		fmt.Sprintf("%v %+v %#v", holder{s}, holder{s}, &holder{s}), string(js), log.String(),
	} {
		if strings.Contains(got, "CANARY") || strings.Contains(got, "43414e415259") {
			t.Errorf("printed the secret: %s", got)
		}
	}
	if s.Reveal() != "CANARY" {
		t.Errorf("Reveal() = %q", s.Reveal())
	}
}

func TestKeyset(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "deep", "keyset.json")
	if _, err := OpenKeyset(path); !errors.Is(err, ErrNoKeyset) {
		t.Fatalf("OpenKeyset of nothing = %v, want ErrNoKeyset", err)
	}
	if err := CreateKeyset(path); err != nil {
		t.Fatal(err)
	}
	if err := CreateKeyset(path); err == nil {
		t.Fatal("CreateKeyset overwrote a keyset")
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Fatalf("mode = %v, %v, want 0600", fi.Mode(), err)
	}
	k, err := OpenKeyset(path)
	if err != nil {
		t.Fatal(err)
	}
	if keys := k.Keys(); len(keys) != 1 || !keys[0].Primary {
		t.Errorf("Keys() = %v, want one primary", keys)
	}
	home := Place{Table: "authorizer_tokens", Column: "access_ct", Tenant: uuid.New(), AppID: "wx1", Row: "r"}
	ct, err := k.SealText(home, NewText("token"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := k.OpenText(home, ct); err != nil || got.Reveal() != "token" {
		t.Errorf("OpenText = %q, %v", got.Reveal(), err)
	}
	for name, move := range map[string]func(*Place){
		"table":  func(p *Place) { p.Table = "x" },
		"column": func(p *Place) { p.Column = "x" },
		"tenant": func(p *Place) { p.Tenant = uuid.New() },
		"appid":  func(p *Place) { p.AppID = "wx2" },
		"row":    func(p *Place) { p.Row = "x" },
	} {
		p := home
		move(&p)
		if _, err := k.Open(p, ct); !errors.Is(err, ErrSealed) {
			t.Errorf("opened after its %s changed: %v", name, err)
		}
	}
	ct[len(ct)-1] ^= 1
	if _, err := k.Open(home, ct); !errors.Is(err, ErrSealed) {
		t.Errorf("opened after a bit flipped: %v", err)
	}
}
