package sandbox

import (
	"cmp"
	"net/http"
	"slices"
	"time"
)

// The part of the control API that changes merchants' accounts, credentials and the map.

type accountReply struct {
	account
	Authorized bool  `json:"authorized"`
	Granted    []int `json:"granted"`
	Stores     int   `json:"stores"`
	Goods      int   `json:"goods"`
	Legacy     int   `json:"legacy_stores"`
}

func (s *Server) showAccount(a *account) accountReply {
	r := accountReply{account: *a, Granted: []int{}}
	if auth := s.st.auths.get(a.AppID); auth != nil {
		r.Authorized, r.Granted = true, auth.Granted
	}
	for _, st := range s.st.stores.rows {
		if st.AppID == a.AppID {
			r.Stores++
		}
	}
	for _, g := range s.st.goods.rows {
		if g.AppID == a.AppID {
			r.Goods++
		}
	}
	r.Legacy = len(s.legacyOf(a.AppID))
	return r
}

func (s *Server) controlAccounts(*http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []accountReply{}
	for _, a := range s.st.accounts.sorted(nil, bySeq) {
		out = append(out, s.showAccount(a))
	}
	return map[string]any{"accounts": out}, nil
}

// controlAccount makes an account or alters one; absent members keep their value. Other sets of an
// authorised account are an update of its authorization, with the event.
func (s *Server) controlAccount(r *http.Request) (any, error) {
	var in struct {
		AppID        string           `json:"appid"`
		Kind         *accountKind     `json:"kind"`
		UserName     *string          `json:"user_name"`
		Nickname     *string          `json:"nickname"`
		Principal    *string          `json:"principal"`
		Sets         []int            `json:"sets"`
		Program      *programState    `json:"store_program"`
		Reason       *string          `json:"reason"`
		StoreLimit   *int             `json:"store_limit"`
		NeedsUpgrade *bool            `json:"needs_upgrade"`
		Individual   *bool            `json:"individual"`
		DailyLimits  map[string]int64 `json:"daily_limits"`
	}
	if err := read(r, &in); err != nil {
		return nil, err
	}
	states := []programState{programNone, programInReview, programApproved, programFailed, programAdminRejected}
	switch {
	case !appidRE.MatchString(in.AppID):
		return nil, bad("appid must be wx and 16 hex digits")
	case in.Kind != nil && *in.Kind != officialAccount && *in.Kind != miniProgram:
		return nil, bad("kind must be official_account or mini_program")
	case in.Program != nil && !slices.Contains(states, *in.Program):
		return nil, bad("store_program must be one of %v", states)
	}
	return s.change(func() (any, error) {
		a := s.st.accounts.get(in.AppID)
		if a == nil {
			kind, sets := officialAccount, []int{8, 11, 13}
			if in.Kind != nil && *in.Kind == miniProgram {
				kind, sets = miniProgram, []int{30, 52}
			}
			a = s.makeAccount(in.AppID, kind, "Account "+in.AppID, sets)
		}
		set(&a.Kind, in.Kind)
		set(&a.UserName, in.UserName)
		set(&a.Nickname, in.Nickname)
		set(&a.Principal, in.Principal)
		set(&a.Program.State, in.Program)
		set(&a.Program.Reason, in.Reason)
		set(&a.StoreLimit, in.StoreLimit)
		set(&a.NeedsUpgrade, in.NeedsUpgrade)
		set(&a.Individual, in.Individual)
		if in.DailyLimits != nil {
			a.DailyLimits = map[string]int64{}
			for path, n := range in.DailyLimits {
				if ep, found := s.endpointOf(path); found {
					path = ep.bucket() // calls that share a quota have one limit
				}
				a.DailyLimits[path] = n
			}
		}
		if a.Program.State != programNone && a.Program.AuditID == 0 {
			a.Program.AuditID, a.Program.Told = s.newAuditID(), true
		}
		if a.Program.State == programInReview {
			s.submit(&audit{Kind: auditStoreProgram, ID: a.Program.AuditID, AppID: a.AppID, Subject: a.Nickname}, 0, phoneStays)
		}
		if in.Sets != nil {
			a.Sets = in.Sets
			if s.st.auths.get(a.AppID) != nil {
				s.authorize(a, a.Sets, consolePreAuthCode())
			}
		}
		s.st.accounts.put(a.AppID, a)
		return s.showAccount(a), nil
	})
}

func set[T any](to *T, v *T) {
	if v != nil {
		*to = *v
	}
}

// consolePreAuthCode is of an authorization that began elsewhere: the component never asked for it.
func consolePreAuthCode() string { return "preauthcode@@@" + random(64) }

func (s *Server) known(r *http.Request) (*account, error) {
	a := s.st.accounts.get(r.PathValue("appid"))
	if a == nil {
		return nil, problem(http.StatusNotFound, "no such account")
	}
	return a, nil
}

// controlConsoleAuthorize is an administrator who authorises in WeChat's console, without any link of ours.
func (s *Server) controlConsoleAuthorize(r *http.Request) (any, error) {
	return s.changeAccount(r, func(a *account) (any, error) {
		s.authorize(a, a.Sets, consolePreAuthCode())
		return s.showAccount(a), nil
	})
}

func (s *Server) controlUnauthorize(r *http.Request) (any, error) {
	return s.changeAccount(r, func(a *account) (any, error) {
		if s.st.auths.get(a.AppID) == nil {
			return nil, problem(http.StatusConflict, "not authorised")
		}
		s.unauthorize(a.AppID)
		return s.showAccount(a), nil
	})
}

// controlSeedStores adds stores that were there before the gateway came.
func (s *Server) controlSeedStores(r *http.Request) (any, error) {
	var in struct {
		Count  int `json:"count"`
		Stores []struct {
			POIID      string   `json:"poi_id"`
			MapPOIID   string   `json:"map_poi_id"`
			Status     int      `json:"status"`
			Hour       string   `json:"hour"`
			Phone      string   `json:"contract_phone"`
			Credential string   `json:"credential"`
			Pictures   []string `json:"pictures"`
		} `json:"stores"`
	}
	if err := read(r, &in); err != nil {
		return nil, err
	}
	return s.changeAccount(r, func(a *account) (any, error) {
		ids := []string{}
		for _, v := range in.Stores {
			if s.st.stores.get(v.POIID) != nil {
				return nil, problem(http.StatusConflict, "poi_id %s exists", v.POIID)
			}
			ids = append(ids, s.seedStore(a, store{
				POIID: v.POIID, MapPOIID: v.MapPOIID, Status: v.Status, Hour: v.Hour, Phone: v.Phone, Credential: v.Credential, Pictures: v.Pictures,
			}).POIID)
		}
		for range in.Count {
			ids = append(ids, s.seedStore(a, store{}).POIID)
		}
		return map[string]any{"poi_ids": ids}, nil
	})
}

// controlSeedPlaces puts places on the map, for tests that need many stores.
func (s *Server) controlSeedPlaces(r *http.Request) (any, error) {
	in := struct {
		Count      int    `json:"count"`
		DistrictID string `json:"district_id"`
	}{Count: 1}
	if err := read(r, &in); err != nil {
		return nil, err
	}
	if in.Count < 1 || in.Count > 10_000 {
		return nil, bad("count must be 1 to 10000")
	}
	return s.change(func() (any, error) {
		ids := make([]string, in.Count)
		for i := range ids {
			ids[i] = s.seedPlace(in.DistrictID).ID
		}
		return map[string]any{"ids": ids}, nil
	})
}

func (s *Server) controlShowSettings(*http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.st.Settings, nil
}

func (s *Server) controlSettings(r *http.Request) (any, error) {
	s.mu.Lock()
	in := s.st.Settings
	s.mu.Unlock()
	if err := read(r, &in); err != nil {
		return nil, err
	}
	if _, err := time.ParseDuration(in.AuditDelay); err != nil && in.AuditDelay != "" {
		return nil, bad("audit_delay must be a duration such as 5s")
	}
	return s.change(func() (any, error) {
		s.st.Settings = in
		s.st.saveMeta()
		return in, nil
	})
}

// controlCredentials spoils what the gateway holds.
func (s *Server) controlCredentials(r *http.Request) (any, error) {
	var in struct {
		ExpireAccessTokens     string `json:"expire_access_tokens"`     // "all", "component" or an appid, now: 42001
		InvalidateRefreshToken string `json:"invalidate_refresh_token"` // appid: 61023, a new one is in the list
		RejectTicket           string `json:"reject_ticket"`            // a value, or "newest": 61006
	}
	if err := read(r, &in); err != nil {
		return nil, err
	}
	return s.change(func() (any, error) {
		var auth *authorization
		var reject *ticket
		if id := in.InvalidateRefreshToken; id != "" {
			if auth = s.st.auths.get(id); auth == nil {
				return nil, problem(http.StatusNotFound, "%s is not authorised", id)
			}
		}
		if in.RejectTicket != "" {
			reject = s.st.tickets.get(in.RejectTicket)
			if list := s.st.tickets.sorted(nil, bySeq); in.RejectTicket == "newest" && len(list) > 0 {
				reject = list[len(list)-1]
			}
			if reject == nil {
				return nil, problem(http.StatusNotFound, "no such ticket")
			}
			reject.Rejected = true
			s.st.tickets.put(reject.Value, reject)
		}
		if auth != nil {
			auth.RefreshToken, auth.OldRefreshToken = newRefreshToken(), ""
			s.st.auths.put(auth.AppID, auth)
		}
		expired := 0
		for value, t := range s.st.tokens.rows {
			owner := cmp.Or(t.AppID, "component")
			if (in.ExpireAccessTokens == "all" || in.ExpireAccessTokens == owner) && s.now().Before(t.Expires) {
				t.Expires = s.now()
				s.st.tokens.put(value, t)
				expired++
			}
		}
		return map[string]int{"expired": expired}, nil
	})
}

// controlMessage pushes any XML to a merchant's message URL, or with no appid to the event URL.
func (s *Server) controlMessage(r *http.Request) (any, error) {
	var in struct {
		AppID string `json:"appid"`
		XML   string `json:"xml"`
		Name  string `json:"name"`
	}
	if err := read(r, &in); err != nil {
		return nil, err
	}
	if in.XML == "" {
		return nil, bad("xml is missing")
	}
	if in.Name == "" {
		in.Name = "message"
	}
	return s.change(func() (any, error) {
		p := s.queue(in.AppID, in.Name, in.XML)
		return map[string]int64{"id": p.ID}, nil
	})
}
