package ledger

import (
	"crypto/sha256"
	"encoding/json"
	"testing"

	"github.com/mendian/mendian/internal/wechat"
)

// A hash that was kept before must be the one that is made today: what
// encoding/json writes is hashed, whatever writes it.
func TestHashOfIsKept(t *testing.T) {
	t.Parallel()
	const awkward = "<b>&\u2028\u2029\x7f\ufffd\"\\/ 火锅\t🍲"
	text, err := json.Marshal(awkward)
	if err != nil {
		t.Fatal(err)
	}
	reply := []byte(`{"business_name":` + string(text) + `,"categories":[` + string(text) + `],"photo_list":[{"photo_url":"https://x/?a=1&b=<"}],
		"longitude":"113.2700","latitude":23.0,"poi_id":2708071440732747189,"status":1,"avg_price":"35","sid":"0012","upgrade_status":3}`)
	var store wechat.Store
	var legacy wechat.LegacyStore
	for _, into := range []any{&store, &legacy} {
		if err := json.Unmarshal(reply, into); err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range []any{store, legacy, legacyFieldsOf(legacy), [...]any{awkward, legacy.UpgradeStatus, legacy.MapID}, [...]wechat.Texts{store.Categories, nil},
		json.RawMessage(`[` + string(text) + `, 1.50]`), struct {
			GoodsFields
			Status int
		}{GoodsFields{Name: awkward}, 2}, wechat.Store{}, wechat.LegacyStore{}} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(b); string(hashOf(v)) != string(sum[:]) {
			t.Errorf("the hash of %T is not that of %s", v, b)
		}
	}
}
