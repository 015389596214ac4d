package authorizer

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// setNames are the permission sets whose meaning is known (platform.md §8.3).
// WeChat adds sets without notice: one that isn't here has no name, and counts
// all the same.
var setNames = map[int32]string{
	// Official Accounts
	1: "messages", 2: "users", 3: "account_service", 4: "web_service", 5: "wechat_shop_old", 6: "customer_service_multi",
	7: "broadcast", 8: "card", 9: "scan", 10: "wifi", 11: "material", 12: "shake_nearby", 13: "store", 14: "pay_old",
	15: "menu", 16: "verification_status_old", 22: "city_service_old", 23: "ads", 24: "open_platform_account",
	26: "e_invoice", 27: "quick_registration", 33: "mini_program_linking", 34: "product_library", 35: "calorie_old",
	44: "good_things", 46: "item_codes", 47: "fiscal_receipt", 54: "service_account_dialogue", 66: "service_market",
	89: "subscription_notice", 113: "medical_assistant", 172: "debug_push",
	// Mini Programs
	17: "mini_program_code", 18: "development", 19: "customer_service", 20: "login_old", 21: "analytics_old",
	25: "open_platform_account", 30: "basic_info", 31: "name_check", 36: "calorie_old", 37: "nearby", 40: "plugin",
	41: "good_things", 45: "logistics", 48: "fiscal_receipt", 49: "cloud_development", 51: "instant_delivery",
	52: "live_broadcast", 57: "page_push_old", 65: "ads", 67: "service_market", 70: "trade_goods", 71: "trade_orders",
	73: "trade_access", 76: "violation_appeal", 81: "trial_verification", 84: "coupons", 85: "trade_custom",
	86: "trial_qr_code", 88: "link_management", 93: "alliance", 99: "cloud_sms", 105: "city_service", 118: "hardware",
	119: "payment", 120: "shopping_orders", 129: "channels_goods", 130: "channels_logistics", 131: "channels_orders",
	132: "channels_coupons", 135: "ad_accounts", 138: "funds", 139: "freight_insurance", 142: "shipping",
	144: "student_verification", 151: "transaction_guarantee", 156: "filing", 157: "virtual_payment",
	161: "wechat_customer_service", 171: "debug_push", 173: "mini_game_debug", 174: "channels_debug",
	185: "shop_member", 186: "shop_member",
}

// SetName is a short name of a permission set; empty for an unknown one.
func SetName(id int32) string { return setNames[id] }

// Capabilities are what can be done for a merchant, as far as its permission
// sets and its kind of account tell: stores belong to an Official Account, live
// goods to a Mini Program (platform.md §8.2).
type Capabilities struct {
	StoreProgram   bool `json:"store_program"`
	Stores         bool `json:"stores"`
	MapPOIs        bool `json:"map_pois"`
	Reference      bool `json:"reference"`
	LegacyStores   bool `json:"legacy_stores"`
	Goods          bool `json:"goods"`
	Images         bool `json:"images"`
	TemporaryMedia bool `json:"temporary_media"`
}

// Capabilities tells what can be done for m.
func (m Merchant) Capabilities() Capabilities {
	granted := func(sets []int) bool {
		return slices.ContainsFunc(sets, func(s int) bool { return slices.Contains(m.PermissionSets, int32(s)) })
	}
	account := m.AccountType != MiniProgram
	stores := account && granted(wechat.AddStore.Sets)
	nearby := account && granted(wechat.SearchMapPOI.Sets)
	return Capabilities{
		StoreProgram: stores, Stores: stores, LegacyStores: stores,
		MapPOIs: nearby, Reference: nearby,
		Goods:  m.AccountType != OfficialAccount && granted(wechat.AddGoods.Sets),
		Images: granted(wechat.UploadImage.Sets), TemporaryMedia: granted(wechat.UploadMedia.Sets),
	}
}

// AccountStatusName is what WeChat says about the account, in a word.
func (m Merchant) AccountStatusName() string {
	if m.AccountStatus != nil {
		switch *m.AccountStatus { // platform.md §5.3
		case 1:
			return "normal"
		case 14:
			return "cancelled"
		case 16:
			return "banned"
		case 18:
			return "warned"
		case 19:
			return "frozen"
		}
	}
	return "unknown"
}

// ShownSet is a permission set as callers see it.
type ShownSet struct {
	ID   int32   `json:"id"`
	Name *string `json:"name"`
}

// ShownSets are the granted sets with their names.
func (m Merchant) ShownSets() []ShownSet {
	out := make([]ShownSet, len(m.PermissionSets))
	for i, id := range m.PermissionSets {
		out[i] = ShownSet{id, orNil(SetName(id))}
	}
	return out
}

// An Object is a merchant as events show it: as the REST surface does, without
// its token, whose state is gone when the event is read.
type Object struct {
	ID              string          `json:"id"`
	AppID           string          `json:"appid"`
	UserName        *string         `json:"user_name"`
	Nickname        *string         `json:"nickname"`
	PrincipalName   *string         `json:"principal_name"`
	HeadImageURL    *string         `json:"head_image_url"`
	AccountType     string          `json:"account_type"`
	AccountStatus   string          `json:"account_status"`
	Verified        *bool           `json:"verified"`
	ClientReference *string         `json:"client_reference"`
	Metadata        json.RawMessage `json:"metadata"`
	Status          string          `json:"status"`
	PermissionSets  []ShownSet      `json:"permission_sets"`
	Capabilities    Capabilities    `json:"capabilities"`
	AuthorizedAt    time.Time       `json:"authorized_at"`
	CreatedAt       time.Time       `json:"created_at"`
	UpdatedAt       time.Time       `json:"updated_at"`
}

// Object is m as events show it.
func (m Merchant) Object() Object {
	return Object{
		ID: typeid.Format(typeid.Merchant, m.ID), AppID: m.AppID, UserName: orNil(m.UserName), Nickname: orNil(m.Nickname),
		PrincipalName: orNil(m.PrincipalName), HeadImageURL: orNil(m.HeadImageURL), AccountType: m.ShownAccountType(),
		AccountStatus: m.AccountStatusName(), Verified: m.Verified, ClientReference: m.ClientReference, Metadata: m.Metadata,
		Status: m.ShownStatus(), PermissionSets: m.ShownSets(), Capabilities: m.Capabilities(),
		AuthorizedAt: m.AuthorizedAt, CreatedAt: m.CreatedAt, UpdatedAt: m.UpdatedAt,
	}
}

// ShownAccountType is the account type as callers see it.
func (m Merchant) ShownAccountType() string {
	if m.AccountType == "" {
		return "unknown"
	}
	return m.AccountType
}
