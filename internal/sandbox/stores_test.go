package sandbox

import (
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// addStoreExample is the request of wechat/000 §4.8 and 002 §5, verbatim, with the two fields that the
// example leaves out although the tables under it call them required: `hour`, and `card_id`, which must
// be there but may be empty. (platform.md §11.3: "add_store hour: required / absent from sample: send".)
func addStoreExample() obj {
	return obj{
		"poi_id":             "",
		"map_poi_id":         "2880741500279549033",
		"pic_list":           `{"list":["http://mmbiz.qpic.cn/mmbiz_jpg/tW66AWvE2K4EJxIYOVpiaGOkfg0iayibiaP2xHOChvbmKQD5uh8ymibbEKlTTPmjTdQ8ia43sULLeG1pT2psOfPic4kTw/0?wx_fmt=jpeg"]}`,
		"contract_phone":     "1111222222",
		"credential":         "22883878-0",
		"qualification_list": "RTZgKZ386yFn5kQSWLTxe4bqxwgzGBjs3OE02cg9CVQk1wRVE3c8fjUFX7jvpi-P",
		"hour":               "10:00-21:00",
		"card_id":            "",
	}
}

func TestAddStore(t *testing.T) {
	t.Parallel()
	b, token := authorized(t)
	got := b.post("/wxa/add_store?access_token="+token, addStoreExample(), nil)
	if got.ErrCode != 0 || got.Data.AuditID == 0 {
		t.Fatalf("add_store = %s", got.raw)
	}
	id := strconv.FormatInt(got.Data.AuditID, 10)
	if d := cmp.Diff(`{"errcode":0,"errmsg":"ok","data":{"audit_id":`+id+`}}`, got.raw); d != "" {
		t.Error(d)
	}
	b.control("POST", "clock", `{"advance":"5s"}`, nil)
	p := b.pushes.wait("add_store_audit_info", nil)
	if p.Get("audit_id") != id || p.Get("status") != "1" || p.Get("poiid") == "" || p.path != "/wechat/ref/messages/"+DemoOfficialAccount {
		t.Errorf("push to %s: %s", p.path, p.plain)
	}
	var journal struct{ Requests []journalEntry }
	b.control("GET", "journal?path=wxa/add_store", "", &journal)
	if len(journal.Requests) != 1 || journal.Requests[0].Body != encode(t, addStoreExample()) || journal.Requests[0].Reply != got.raw {
		t.Errorf("journal = %+v", journal.Requests)
	}
	var truth struct {
		IDs     []truthID
		Effects []effect
	}
	b.control("GET", "truth", "", &truth)
	if len(truth.Effects) != 1 || truth.Effects[0].Kind != "add_store" || truth.Effects[0].ID != id || truth.Effects[0].Key != "2880741500279549033" {
		t.Errorf("effects = %+v", truth.Effects)
	}
	if len(truth.IDs) != 2 || truth.IDs[0].ID != id || truth.IDs[1].ID != p.Get("poiid") {
		t.Errorf("ids = %+v", truth.IDs)
	}
}
