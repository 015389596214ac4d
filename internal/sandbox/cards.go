package sandbox

import (
	"net/http"
	"strconv"
	"strings"
)

// Cards and coupons of a store (wechat/000 §14).
func cardEndpoints() []endpoint {
	post := func(path string, serve func(*call) (any, error)) endpoint {
		return endpoint{
			method: http.MethodPost, path: "/card/storewxa/" + path, token: tokenAuthorizer,
			sets: storeSets, kind: officialAccount, serve: serve,
		}
	}
	return []endpoint{post("get", getCard), post("set", setCard)}
}

// cardStore is the store that the body names, by a number: these two calls are the only ones whose
// examples have poi_id as one.
func (c *call) cardStore() (*store, error) {
	id, isNumber := c.fields.number("poi_id")
	if !isNumber {
		return nil, refuse(40097)
	}
	st := c.st.stores.get(strconv.FormatInt(id, 10))
	if st == nil || st.AppID != c.acc.AppID {
		return nil, refuse(65115)
	}
	return st, nil
}

// customCode: a card with base_info.use_custom_code cannot be a store's. The simulator knows it by its id.
func customCode(cardID string) bool { return strings.Contains(cardID, "custom") }

// getCard leaves card_id out where the store has none.
func getCard(c *call) (any, error) {
	st, err := c.cardStore()
	if err != nil {
		return nil, err
	}
	return struct {
		okReply
		CardID string `json:"card_id,omitempty"`
	}{ok, st.CardID}, nil
}

func setCard(c *call) (any, error) {
	st, err := c.cardStore()
	if err != nil {
		return nil, err
	}
	id, _ := c.fields.text("card_id")
	if id == "" || customCode(id) {
		return nil, refuse(40097)
	}
	st.CardID = id
	c.st.stores.put(st.POIID, st)
	c.executed("set_card", c.acc.AppID, st.POIID, id)
	return ok, nil
}
