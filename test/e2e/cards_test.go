package e2e

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/test/world"
)

// A store offers no card, then the documents' own, then another: document 000
// §14 in our words.
func TestStoreCards(t *testing.T) {
	t.Parallel()
	s := openShop(t, 60)
	const documentsCard = "pabcedfg1234567hijklmn"
	s.Control("POST", "accounts/"+s.appid+"/stores", map[string]any{"stores": []map[string]string{{"poi_id": "1234567"}}}, nil)
	c := s.client
	c.Do("GET", "/v1/stores/1234567?source=live", nil).Want(200)
	s.Eventually("our record of it", func() error {
		if a := c.Do("GET", "/v1/stores/1234567", nil); a.Status != 200 {
			return fmt.Errorf("%s", a.Body)
		}
		return nil
	})
	store := c.Do("GET", "/v1/stores/1234567", nil).Want(200)
	path := "/v1/stores/" + store.Get("id") + "/card"
	card := func(id string) map[string]any { return map[string]any{"card_id": id} }
	sent := func(call string) string {
		calls := s.Journal("card/storewxa/" + call)
		return calls[len(calls)-1].Body
	}

	if a := c.Do("GET", path, nil).Want(200); string(a.Body) != `{"card_id":null}`+"\n" || sent("get") != `{"poi_id":1234567}` {
		t.Errorf("none: %s, sent %s", a.Body, sent("get"))
	}

	// What is refused here is never sent.
	for name, refused := range map[string]struct {
		body    any
		headers []string
		status  int
		code    string
		pointer string
	}{
		"null":          {map[string]any{"card_id": nil}, nil, 422, "validation_failed", "/card_id"},
		"nothing":       {map[string]any{}, nil, 422, "validation_failed", "/card_id"},
		"empty":         {card(""), nil, 422, "validation_failed", "/card_id"},
		"blanks":        {card("p 1"), nil, 422, "validation_failed", "/card_id"},
		"unknown field": {map[string]any{"card_id": "p1", "card": "p1"}, nil, 400, "unknown_field", "/card"},
		"version":       {card("p1"), []string{"If-Match", `"999-00000000"`}, 412, "version_conflict", ""},
	} {
		for _, query := range []string{"", "?validate_only=true"} {
			a := c.Do("PUT", path+query, refused.body, refused.headers...)
			if a.Status != refused.status || a.Code() != refused.code || refused.pointer != "" && a.Get("errors", "0", "pointer") != refused.pointer {
				t.Errorf("%s%s: %d %s", name, query, a.Status, a.Body)
			}
		}
	}
	if a := c.Do("PUT", path+"?validate_only=true", card(documentsCard), "Idempotency-Key", "card-1").Want(200); a.Get("valid") != "true" {
		t.Errorf("validated: %s", a.Body)
	}
	if n := len(s.Journal("card/storewxa/set")); n != 0 {
		t.Errorf("%d calls were made", n)
	}

	set := c.Do("PUT", path, card(documentsCard), "Idempotency-Key", "card-1", "If-Match", store.Header.Get("ETag")).Want(200)
	var wire struct {
		PoiID  json.Number `json:"poi_id"`
		CardID string      `json:"card_id"`
	}
	if err := json.Unmarshal([]byte(sent("set")), &wire); err != nil || wire.PoiID != "1234567" || wire.CardID != documentsCard {
		t.Errorf("on the wire: %s, %v", sent("set"), err)
	}
	if set.Get("card_id") != documentsCard || set.Header.Get("Operation-Id") == "" || set.Header.Get("ETag") == store.Header.Get("ETag") {
		t.Errorf("set: %v %s", set.Header, set.Body)
	}
	if a := c.Do("GET", path, nil).Want(200); a.Get("card_id") != documentsCard {
		t.Errorf("shown: %s", a.Body)
	}
	if a := c.Do("GET", "/v1/stores/1234567", nil).Want(200); a.Get("card_id") != documentsCard || a.Header.Get("ETag") != set.Header.Get("ETag") {
		t.Errorf("the store: %v %s", a.Header, a.Body)
	}
	if op := c.Do("GET", "/v1/operations/"+set.Header.Get("Operation-Id"), nil).Want(200); op.Get("kind") != "store.set_card" || op.Get("status") != "succeeded" || op.Get("subject", "id") != store.Get("id") {
		t.Errorf("the operation: %s", op.Body)
	}
	c.Do("PUT", path, card("p2"), "If-Match", store.Header.Get("ETag")).WantProblem(412, "version_conflict")
	if a := c.Do("PUT", path, card(documentsCard), "Idempotency-Key", "card-1").Want(200); a.Header.Get("Idempotency-Replayed") != "true" || a.Header.Get("Operation-Id") != set.Header.Get("Operation-Id") {
		t.Errorf("the same key: %v %s", a.Header, a.Body)
	}
	c.Do("PUT", path, card("p2"), "Idempotency-Key", "card-1").WantProblem(422, "idempotency_key_reused")
	if n := len(s.Journal("card/storewxa/set")); n != 1 {
		t.Errorf("%d calls were made", n)
	}

	// By WeChat's number; a card of the console's is seen, and kept.
	c.Do("PUT", "/v1/stores/1234567/card", card("p2")).Want(200)
	s.Exec(`UPDATE resources SET fields = fields - 'card_id' WHERE wechat_id = '1234567'`)
	if a := c.Do("GET", path, nil).Want(200); a.Get("card_id") != "p2" {
		t.Errorf("shown: %s", a.Body)
	}
	s.Eventually("the record has the card", func() error {
		if a := c.Do("GET", "/v1/stores/1234567", nil).Want(200); a.Get("card_id") != "p2" {
			return fmt.Errorf("%s", a.Body)
		}
		return nil
	})

	// WeChat refuses a card with custom codes.
	c.Do("PUT", path, card("p-custom")).WantProblem(422, "invalid_argument")
	poor := s.Client(s.gateway, s.Authorize(s.gateway, sandbox.NoStoreSetsAccount))
	poor.Do("GET", path, nil).WantProblem(404, "not_found")
	c.Do("GET", "/v1/stores/7654321/card", nil).WantProblem(404, "not_found")
	s.Hold(true)
	waits := c.Do("POST", "/v1/stores", s.fresh()).Want(202).Get("id")
	c.Do("GET", "/v1/stores/"+waits+"/card", nil).WantProblem(409, "store_state_unknown")
	c.Do("PUT", "/v1/stores/"+waits+"/card", card("p3")).WantProblem(409, "store_not_updatable")

	stores := rows(c.Do("GET", "/v1/stores?limit=100&status=active", nil).Want(200))
	next := func() string {
		one := stores[0]
		stores = append(stores[1:], one)
		return "/v1/stores/" + one["poi_id"].(string) + "/card"
	}
	answersEveryErrcode(t, s.World, c, errcodeCall{operation: "getStoreCard", endpoint: "card.get", path: "card/storewxa/get", do: func(c *world.Client) *world.Answer { return c.Do("GET", next(), nil) }})
	answersEveryErrcode(t, s.World, c, errcodeCall{operation: "setStoreCard", endpoint: "card.set", path: "card/storewxa/set", write: true, do: func(c *world.Client) *world.Answer {
		return c.Do("PUT", next(), card("p4"))
	}})
}
