package wechat

import (
	"encoding/json"
	"net/http"
)

// GetStoreCard reads which card a store shows (document 000 §14, step 1).
var GetStoreCard = &Endpoint{
	Name: "card.get", Method: http.MethodPost, Path: "/card/storewxa/get",
	Sets: storeSets, Family: FamilyCard,
}

// GetStoreCardRequest is GetStoreCard's body. The poi_id is a number in both
// calls of cards, and a string everywhere else.
type GetStoreCardRequest struct {
	PoiID json.Number `json:"poi_id"`
}

// GetStoreCardReply is GetStoreCard's answer. Without a card card_id is absent.
type GetStoreCardReply struct {
	CardID string `json:"card_id"`
}

// SetStoreCard makes a store show a card (document 000 §14, step 2). It must
// be one without custom codes.
var SetStoreCard = &Endpoint{
	Name: "card.set", Method: http.MethodPost, Path: "/card/storewxa/set",
	Sets: storeSets, Family: FamilyCard, Risk: Overwrite,
}

// SetStoreCardRequest is SetStoreCard's body.
type SetStoreCardRequest struct {
	PoiID  json.Number `json:"poi_id"`
	CardID string      `json:"card_id"`
}
