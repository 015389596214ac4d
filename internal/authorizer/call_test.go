package authorizer

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mendian/mendian/internal/sandbox"
)

func TestAuthorizeAndCall(t *testing.T) {
	t.Parallel()
	b := start(t)
	m := b.authorize(sandbox.DemoOfficialAccount)
	if m.Status != StatusAuthorized || m.AccountType != OfficialAccount || !sameSets(m.PermissionSets, []int32{8, 11, 13}) || m.Nickname == "" || m.UserName == "" {
		t.Errorf("merchant = %+v", m)
	}
	if err := b.read(b.a(), m); err != nil {
		t.Fatal(err)
	}
	want := Capabilities{StoreProgram: true, Stores: true, MapPOIs: true, Reference: true, LegacyStores: true, Images: true, TemporaryMedia: true}
	if diff := cmp.Diff(want, m.Capabilities()); diff != "" {
		t.Error(diff)
	}
	if got := scalar[string](b, `SELECT string_agg(type, ' ') FROM outbox`); got != "merchant.authorized" {
		t.Errorf("events = %s", got)
	}
	if got := scalar[bool](b, `SELECT inventory_due_at IS NOT NULL FROM merchants`); !got {
		t.Error("no inventory is due")
	}
}
