package typeid

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

// The pairs are the specification's own (jetify-com/typeid, valid.yml).
func TestSpecificationVectors(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ text, id string }{
		{"prefix_00000000000000000000000000", "00000000-0000-0000-0000-000000000000"},
		{"prefix_00000000000000000000000001", "00000000-0000-0000-0000-000000000001"},
		{"prefix_0000000000000000000000000a", "00000000-0000-0000-0000-00000000000a"},
		{"prefix_0000000000000000000000000g", "00000000-0000-0000-0000-000000000010"},
		{"prefix_00000000000000000000000010", "00000000-0000-0000-0000-000000000020"},
		{"prefix_7zzzzzzzzzzzzzzzzzzzzzzzzz", "ffffffff-ffff-ffff-ffff-ffffffffffff"},
		{"prefix_0123456789abcdefghjkmnpqrs", "0110c853-1d09-52d8-d73e-1194e95b5f19"},
		{"prefix_01h455vb4pex5vsknk084sn02q", "01890a5d-ac96-774b-bcce-b302099a8057"},
	} {
		id := uuid.MustParse(tc.id)
		if got := Format("prefix", id); got != tc.text {
			t.Errorf("Format(%s) = %s, want %s", tc.id, got, tc.text)
		}
		if got, err := Parse("prefix", tc.text); err != nil || got != id {
			t.Errorf("Parse(%s) = %s, %v, want %s", tc.text, got, err, tc.id)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	good := Format(Store, New())
	for name, s := range map[string]string{
		"empty":        "",
		"other prefix": Format(Audit, New()),
		"short":        good[:len(good)-1],
		"long":         good + "0",
		"upper case":   strings.ToUpper(good),
		"too large":    "sto_8zzzzzzzzzzzzzzzzzzzzzzzzz",
		"bad letter":   good[:len(good)-1] + "u",
		"a number":     "472671857",
	} {
		if id, err := Parse(Store, s); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: Parse(%q) = %v, %v, want ErrInvalid", name, s, id, err)
		}
	}
}

func TestRoundTripAndOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a := uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "a"))
		b := uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "b"))
		ta, tb := Format(Store, a), Format(Store, b)
		if got, err := Parse(Store, ta); err != nil || got != a {
			t.Fatalf("Parse(Format(%s)) = %s, %v", a, got, err)
		}
		if (a.String() < b.String()) != (ta < tb) {
			t.Fatalf("order of %s and %s is lost in %s and %s", a, b, ta, tb)
		}
	})
}
