package sandbox

import "time"

// component is the third-party platform that the simulator serves.
type component struct {
	AppID                  string `json:"appid"`
	Secret                 string `json:"secret"`
	MessageToken           string `json:"message_token"`
	EncodingAESKey         string `json:"encoding_aes_key"`
	PreviousEncodingAESKey string `json:"previous_encoding_aes_key,omitempty"`
	PushURL                string `json:"push_url"`
	EventURL               string `json:"event_url,omitempty"`
}

// settings are the switches of POST /_sandbox/settings.
type settings struct {
	TicketsStopped          bool     `json:"tickets_stopped"`
	OmitRefreshTokenInReply bool     `json:"omit_refresh_token_in_reply"`
	OmitRefreshTokenInList  bool     `json:"omit_refresh_token_in_list"`
	RotateRefreshTokens     bool     `json:"rotate_refresh_tokens"`
	TokenGraceOff           bool     `json:"token_grace_off"`
	UsePreviousKey          bool     `json:"use_previous_key"`
	PushCopies              int      `json:"push_copies"`
	AuditDelay              string   `json:"audit_delay"`
	IPWhitelist             []string `json:"ip_whitelist"`
	MapPOIErrcodeShape      bool     `json:"map_poi_errcode_shape"`
	GoodsPricesInFen        bool     `json:"goods_prices_in_fen"`
	LegacyBlankKeys         bool     `json:"legacy_blank_keys"`
}

type accountKind string

const (
	officialAccount accountKind = "official_account"
	miniProgram     accountKind = "mini_program"
)

// account is a merchant's account, whether or not it has authorised the component.
type account struct {
	Seq          int64             `json:"seq"`
	AppID        string            `json:"appid"`
	Kind         accountKind       `json:"kind"`
	UserName     string            `json:"user_name"`
	Nickname     string            `json:"nickname"`
	Principal    string            `json:"principal"`
	Sets         []int             `json:"sets"` // what its administrator grants
	Program      storeProgram      `json:"store_program"`
	StoreLimit   int               `json:"store_limit,omitempty"`
	NeedsUpgrade bool              `json:"needs_upgrade,omitempty"`
	Individual   bool              `json:"individual,omitempty"` // no store program for it: 43104
	DailyLimits  map[string]int64  `json:"daily_limits,omitempty"`
	Options      map[string]string `json:"options,omitempty"`
}

func (a *account) seq() int64 { return a.Seq }

// storeProgram is the account's store mini program (wechat/000 §4.2, §4.3).
type storeProgram struct {
	State    programState `json:"state"`
	AuditID  int64        `json:"audit_id,omitempty"`
	Reason   string       `json:"reason,omitempty"`
	Nickname string       `json:"nickname,omitempty"`
	Intro    string       `json:"intro,omitempty"`
	HeadImg  string       `json:"headimg_mediaid,omitempty"`
	Told     bool         `json:"told,omitempty"` // its audit_id is in the truth log, or nobody applied for it here
	// Changes are what modify_merchant did in Month, which is of Beijing.
	Month   string         `json:"month,omitempty"`
	Changes map[string]int `json:"changes,omitempty"`
}

type programState string

const (
	programNone          programState = "none"
	programAwaitingAdmin programState = "awaiting_admin" // sent, and not confirmed by the administrator yet
	programInReview      programState = "in_review"
	programApproved      programState = "approved"
	programFailed        programState = "failed"
	programAdminRejected programState = "admin_rejected"
)

// authorization is one account's standing consent.
type authorization struct {
	Seq             int64
	AppID           string
	Granted         []int
	RefreshToken    string
	OldRefreshToken string    // still good until OldUntil, after a rotation
	OldUntil        time.Time // virtual
	At              time.Time // wall, as auth_time
	QueryAuthCalled bool      // without it the list carries no refresh token (platform.md §5.1)
}

func (a *authorization) seq() int64 { return a.Seq }

// token is an access token that was issued, of the component when AppID is empty.
type token struct {
	AppID   string
	AuthSeq int64     // the authorization it was issued under
	Expires time.Time // virtual
	// NotLatestFrom is when a newer token ends it: 40001 from then on, not 42001.
	NotLatestFrom time.Time
}

type ticket struct {
	Seq      int64
	Value    string
	Issued   time.Time // virtual
	Rejected bool
}

func (t *ticket) seq() int64 { return t.Seq }

type preauth struct {
	Expires time.Time
	Used    bool
}

// authCode is an authorization_code.
type authCode struct {
	Seq     int64
	AppID   string
	Expires time.Time
	Used    bool
}

// mapPOI is a place on Tencent's map.
type mapPOI struct {
	ID         string
	Name       string
	Address    string
	Province   string
	City       string
	District   string
	Category   string
	Telephone  string
	Longitude  float64
	Latitude   float64
	DataSupply int
}

// store is a store of a store mini program (wechat/000 §4.8 to §4.12).
type store struct {
	Seq        int64
	POIID      string
	AppID      string
	MapPOIID   string
	Pictures   []string
	Phone      string
	Hour       string
	Credential string
	Company    string
	CardID     string
	Status     int  // storeApproved and so on
	Told       bool // its poi_id has left the simulator, so the truth log has it
}

func (s *store) seq() int64 { return s.Seq }

// Values of `status` in get_store_info and get_store_list (wechat/000 §4.10).
const (
	storeApproved = 1
	storeInAudit  = 2
	storeFailed   = 3
)

type auditKind string

const (
	auditStoreProgram auditKind = "store_program"
	auditMapPOI       auditKind = "map_poi"
	auditStoreCreate  auditKind = "store_create"
	auditStoreUpdate  auditKind = "store_update"
	auditGoods        auditKind = "goods"
	auditLegacyCreate auditKind = "legacy_create"
	auditLegacyUpdate auditKind = "legacy_update"
)

// audit is one review. Its id is audit_id, of a map_poi base_id, of a legacy_create poi_id; that of a
// legacy_update is the simulator's own, since WeChat gives it none.
type audit struct {
	Seq       int64      `json:"seq"`
	Kind      auditKind  `json:"kind"`
	ID        int64      `json:"id"`
	AppID     string     `json:"appid"`
	Subject   string     `json:"subject"` // poi_id, or the name of the place
	Status    string     `json:"status"`  // pending, or the decision
	Reason    string     `json:"reason,omitempty"`
	Submitted time.Time  `json:"submitted_at"`
	Due       *time.Time `json:"due_at"` // virtual; null: waits for the control API
	Decided   *time.Time `json:"decided_at"`
	Pictures  []string   `json:"pictures,omitempty"` // of a store_update
	Place     *mapPOI    `json:"place,omitempty"`    // of a map_poi
	// LegacyPOIID is the store to migrate that a map_poi is for.
	LegacyPOIID string `json:"legacy_poi_id,omitempty"`
	Upgrade     bool   `json:"upgrade,omitempty"` // of a store_create that migrates a store
	AutoDeny    bool   `json:"auto_deny,omitempty"`
	// AwaitsAdmin: the store_program was not confirmed yet; it expires when due.
	AwaitsAdmin bool           `json:"awaits_admin,omitempty"`
	Service     *legacyService `json:"service,omitempty"` // of a legacy_update
}

func (a *audit) seq() int64 { return a.Seq }

const (
	auditPending       = "pending"
	auditApproved      = "approved"
	auditRejected      = "rejected"
	auditAdminRejected = "admin_rejected"
	auditWithdrawn     = "withdrawn" // by its merchant, goods only
	auditExpired       = "expired"   // never confirmed: no event
)

// push is one message to the gateway, before encryption.
type push struct {
	ID        int64     `json:"id"`
	AppID     string    `json:"appid"` // of the merchant; empty: a component event
	Name      string    `json:"name"`  // InfoType or Event
	XML       string    `json:"xml"`
	Status    string    `json:"status"` // queued, delivered, failed
	Attempts  int       `json:"attempts"`
	CreatedAt time.Time `json:"created_at"`
	NextAt    time.Time `json:"next_at"`
	LastError string    `json:"last_error,omitempty"`
	Released  bool      `json:"released,omitempty"` // goes out although pushes are held
}

func (p *push) seq() int64 { return p.ID }

const (
	pushQueued    = "queued"
	pushDelivered = "delivered"
	pushFailed    = "failed"
)

type usage struct {
	Day   string
	Count int64
}

// truthID is an id that left the simulator, effect a write that it executed.
type truthID struct {
	Seq   int64     `json:"seq"`
	Type  string    `json:"type"`
	ID    string    `json:"id"`
	AppID string    `json:"appid"`
	Key   string    `json:"key,omitempty"` // what it belongs to: map_poi_id, poi_id, name
	Via   string    `json:"via"`           // the call or event that told it first, or "seed"
	At    time.Time `json:"at"`
}

func (t *truthID) seq() int64 { return t.Seq }

type effect struct {
	Seq   int64     `json:"seq"`
	Kind  string    `json:"kind"`
	AppID string    `json:"appid"`
	ID    string    `json:"id"`
	Key   string    `json:"key"`
	At    time.Time `json:"at"`
}

func (e *effect) seq() int64 { return e.Seq }
