package sandbox

import "testing"

func cardRefusals() map[string][]refusal {
	const s14 = "wechat/000 §14"
	set := obj{"poi_id": 472671857, "card_id": "pabcedfg1234567hijklmn"}
	both := func(card obj) []refusal {
		body := func(id any) obj { return card.with(obj{"poi_id": id}) }
		return []refusal{
			{"without poi_id", s14, 40097, card, nil},
			{"poi_id a string", s14 + ", platform.md §11.1 no. 5", 40097, body("472671857"), nil},
			{"unknown store", s14 + " (must belong to the Store Mini Program)", 65115, body(1), nil},
			{"another account's store", s14 + " (must belong to the Store Mini Program)", 65115, body(400000001), func(s *scene) {
				s.control("POST", "accounts/"+LeavingAccount+"/stores", `{"stores":[{"poi_id":"400000001"}]}`, nil)
			}},
			{"legacy store", s14 + " (must belong to the Store Mini Program)", 65115, body(271262077), legacyStores(`{"stores":[{"poi_id":"271262077"}]}`)},
		}
	}
	return map[string][]refusal{
		"/card/storewxa/get": both(obj{}),
		"/card/storewxa/set": append(both(set.without("poi_id")), []refusal{
			{"without card_id", s14, 40097, set.without("card_id"), nil},
			{"empty card_id", s14, 40097, set.with(obj{"card_id": ""}), nil},
			{"card_id a number", s14, 40097, set.with(obj{"card_id": 1}), nil},
			{"custom-code card", s14 + " (use_custom_code==false)", 40097, set.with(obj{"card_id": "p-custom-1"}), nil},
		}...),
	}
}

// wechat/000 §14: card_id is absent where none is set.
func TestCards(t *testing.T) {
	t.Parallel()
	b, token := authorized(t)
	b.control("POST", "accounts/"+DemoOfficialAccount+"/stores", `{"stores":[{"poi_id":"1234567"}]}`, nil)
	get := func() string {
		return b.post("/card/storewxa/get?access_token="+token, obj{"poi_id": 1234567}, nil).raw
	}
	if got := get(); got != `{"errcode":0,"errmsg":"ok"}` {
		t.Errorf("none set = %s", got)
	}
	if got := b.post("/card/storewxa/set?access_token="+token, obj{"poi_id": 1234567, "card_id": "pabcedfg1234567hijklmn"}, nil).raw; got != `{"errcode":0,"errmsg":"ok"}` {
		t.Errorf("set = %s", got)
	}
	if got := get(); got != `{"errcode":0,"errmsg":"ok","card_id":"pabcedfg1234567hijklmn"}` {
		t.Errorf("get = %s", got)
	}
	if got := b.truth().Effects; len(got) != 1 || got[0].Kind != "set_card" || got[0].ID != "1234567" || got[0].Key != "pabcedfg1234567hijklmn" {
		t.Errorf("effects = %+v", got)
	}
	// update_store sets it too, and leaves it alone where it is empty (wechat/000 §4.9).
	update := updateStoreExample().with(obj{"poi_id": "1234567"})
	for _, tt := range []struct{ send, want string }{{"p2", "p2"}, {"", "p2"}} {
		b.post("/wxa/update_store?access_token="+token, update.with(obj{"card_id": tt.send}), nil)
		contains(t, get(), `"card_id":"`+tt.want+`"`)
	}
}
