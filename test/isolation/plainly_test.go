package isolation

import (
	"testing"

	"github.com/mendian/mendian/test/world"
)

// What was asked for is no difference, nor is the address of a gateway that
// happens to hold its number; anything else is.
func TestPlainly(t *testing.T) {
	t.Parallel()
	of := func(body, value string) string {
		a := &world.Answer{Body: []byte(body)}
		a.Status = 404
		return plainly(a, value)
	}
	const there = `{"type":"http://127.78.159.242:40843/docs/problems/not_found","detail":"no `
	if a, b := of(there+`242"}`, "242"), of(there+`942"}`, "942"); a != b {
		t.Errorf("%s\n%s", a, b)
	}
	if a, b := of(there+`242 of yours"}`, "242"), of(there+`942"}`, "942"); a == b {
		t.Error("two answers that differ are told to be one")
	}
}
