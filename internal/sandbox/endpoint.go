package sandbox

import (
	"net/http"
	"slices"
	"strconv"
	"time"
)

// An endpoint is one call of WeChat's API. Adding one is an entry in its family's table and a function
// that checks the rules of the documents and answers; everything that all calls have in common
// (platform.md §13) is done before it from what the entry says.
type endpoint struct {
	method string
	path   string
	token  tokenKind
	// sets are the permission sets that open the call, any one of them (platform.md §8). None: all.
	sets []int
	// kind is the sort of account that may call; empty: any.
	kind accountKind
	// program: the account must have an approved store program, else 85053.
	program bool
	// upload: the body is a multipart form, not JSON, and the reply goes out as text/plain.
	upload bool
	quota  quota
	serve  func(*call) (any, error)
}

type tokenKind int

const (
	tokenNone tokenKind = iota
	tokenComponent
	tokenAuthorizer
	tokenEither
)

// Permission sets by family (platform.md §8.2).
var (
	storeSets       = []int{8, 9, 10, 13}
	mapPlaceSets    = []int{8, 9, 10, 13, 37}
	goodsSets       = []int{52}
	messageSets     = []int{1, 19}
	uploadSets      = []int{1, 3, 8, 9, 11, 19, 30, 31, 100}
	uploadImageSets = []int{1, 8, 9, 11, 18, 37, 100}
)

func (s *Server) endpoints() []endpoint {
	return slices.Concat(
		componentEndpoints(),
		authorizerEndpoints(),
		referenceEndpoints(),
		mapPOIEndpoints(),
		programEndpoints(),
		storeEndpoints(),
		goodsEndpoints(),
		mediaEndpoints(),
		cardEndpoints(),
		legacyEndpoints(),
		messageEndpoints(),
		quotaEndpoints(),
	)
}

// call is one request to an endpoint, after the checks. It is served under Server.mu.
type call struct {
	*Server
	r        *http.Request
	endpoint endpoint
	fields   fields // of a JSON body
	body     []byte
	acc      *account       // nil for component calls
	auth     *authorization // likewise
	at       time.Time      // virtual
}

// do runs the checks in the order of platform.md §13, which is an assumption there, then the call.
func (s *Server) do(ep endpoint, r *http.Request, body []byte) (any, error) {
	c := &call{Server: s, r: r, endpoint: ep, body: body, at: s.now()}
	if r.Method != ep.method {
		if ep.method == http.MethodGet {
			return nil, refuse(43001)
		}
		return nil, refuse(43002)
	}
	if err := c.checkToken(); err != nil {
		return nil, err
	}
	if list := s.st.Settings.IPWhitelist; len(list) > 0 && ep.token != tokenAuthorizer {
		if ip := clientIP(r); !slices.Contains(list, ip) {
			return nil, &wxError{61004, "access clientip is not registered requestIP: " + ip}
		}
	}
	if err := c.checkAccount(); err != nil {
		return nil, err
	}
	if ep.method == http.MethodPost && !ep.upload {
		f, err := parseFields(body)
		if err != nil {
			return nil, err
		}
		c.fields = f
	}
	if ep.program && c.acc.Program.State != programApproved {
		return nil, refuse(85053)
	}
	if ep.token == tokenComponent {
		if err := c.checkComponentAppID(); err != nil {
			return nil, err
		}
	}
	return ep.serve(c)
}

// checkToken: missing 41001, unknown 40001, expired 42001, of the wrong kind 61014 or 61015.
func (c *call) checkToken() error {
	if c.endpoint.token == tokenNone {
		return nil
	}
	q := c.r.URL.Query()
	value := q.Get("access_token")
	if value == "" && c.endpoint.token != tokenAuthorizer {
		value = q.Get("component_access_token") // the older name, platform.md §1
	}
	if value == "" {
		return refuse(41001)
	}
	t := c.st.tokens.get(value)
	if t == nil || (!t.NotLatestFrom.IsZero() && !c.at.Before(t.NotLatestFrom)) {
		return refuse(40001)
	}
	if !c.at.Before(t.Expires) {
		return refuse(42001)
	}
	switch {
	case t.AppID == "" && c.endpoint.token == tokenAuthorizer:
		return refuse(61015)
	case t.AppID != "" && c.endpoint.token == tokenComponent:
		return refuse(61014)
	case t.AppID != "":
		c.acc, c.auth = c.st.accounts.get(t.AppID), c.st.auths.get(t.AppID)
		if c.auth != nil && c.auth.Seq != t.AuthSeq {
			return refuse(40001) // from before the account left and came back
		}
	}
	return nil
}

// checkAccount: not authorised 61003, set not granted 61007, wrong account kind 48001, quota used up
// 45009 or the code of the endpoint.
func (c *call) checkAccount() error {
	if c.acc == nil {
		return nil
	}
	if c.auth == nil {
		return refuse(61003)
	}
	if sets := c.endpoint.sets; len(sets) > 0 && !slices.ContainsFunc(sets, c.hasSet) {
		return refuse(61007)
	}
	if k := c.endpoint.kind; k != "" && k != c.acc.Kind {
		return refuse(48001)
	}
	return c.use(c.acc, c.endpoint)
}

func (c *call) hasSet(id int) bool { return slices.Contains(c.auth.Granted, id) }

// checkComponentAppID: every call with a component token names the component in its body.
func (c *call) checkComponentAppID() error {
	id, ok := c.fields.text("component_appid")
	switch {
	case !ok || id == "":
		return refuse(41018)
	case id != c.st.Component.AppID:
		return refuse(40013)
	}
	return nil
}

// authorizer is the account that the body names, if it has authorised the component.
func (c *call) authorizer() (*account, *authorization, error) {
	id, ok := c.fields.text("authorizer_appid")
	if !ok || id == "" {
		return nil, nil, refuse(40013)
	}
	auth := c.st.auths.get(id)
	if auth == nil {
		return nil, nil, refuse(61003)
	}
	return c.st.accounts.get(id), auth, nil
}

// told records that an id leaves the simulator for the first time, executed that a write was done.
func (s *Server) told(kind, id, appid, key, via string) {
	n := s.st.next("truth", 1)
	s.st.truthIDs.put(strconv.FormatInt(n, 10), &truthID{Seq: n, Type: kind, ID: id, AppID: appid, Key: key, Via: via, At: time.Now()})
}

func (s *Server) executed(kind, appid, id, key string) {
	n := s.st.next("effect", 1)
	s.st.effects.put(strconv.FormatInt(n, 10), &effect{Seq: n, Kind: kind, AppID: appid, ID: id, Key: key, At: time.Now()})
}
