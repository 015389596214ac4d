package sandbox

import (
	"cmp"
	"net/http"
	"strings"
	"time"
)

// quota is how often an account may make a call on one day. The zero value is dailyLimit for the path
// alone, and 45009 beyond it.
type quota struct {
	bucket string // the path that counts, where calls share one quota
	daily  int64
	code   int
}

// dailyLimit is of a call for which WeChat publishes none.
const dailyLimit = 10_000

var beijing = time.FixedZone("Asia/Shanghai", 8*60*60)

// Quota queries (platform.md §10).
func quotaEndpoints() []endpoint {
	return []endpoint{
		{method: http.MethodPost, path: "/cgi-bin/openapi/quota/get", token: tokenEither, serve: getQuota},
	}
}

func (ep endpoint) bucket() string { return cmp.Or(ep.quota.bucket, ep.path) }

func (s *Server) limit(acc *account, ep endpoint) int64 {
	if n, set := acc.DailyLimits[ep.bucket()]; set {
		return n
	}
	return cmp.Or(ep.quota.daily, dailyLimit)
}

func (s *Server) used(acc *account, ep endpoint) *usage {
	u := s.st.usage.get(acc.AppID + " " + ep.bucket())
	if day := s.now().In(beijing).Format(time.DateOnly); u == nil || u.Day != day {
		u = &usage{Day: day} // the day turns at Beijing midnight, by common report
	}
	return u
}

// use counts a call against the account's own daily quota, or refuses it. What was counted is never
// given back, also not for a call that is refused later or an audit that is withdrawn (wechat/004 §2).
func (s *Server) use(acc *account, ep endpoint) error {
	u := s.used(acc, ep)
	if u.Count >= s.limit(acc, ep) {
		return refuse(cmp.Or(ep.quota.code, 45009))
	}
	u.Count++
	s.st.usage.put(acc.AppID+" "+ep.bucket(), u)
	return nil
}

func getQuota(c *call) (any, error) {
	path, isText := c.fields.text("cgi_path")
	if !isText || !strings.HasPrefix(path, "/") {
		return nil, refuse(76003)
	}
	ep, found := c.endpointOf(path)
	if !found {
		return nil, refuse(76021)
	}
	type quota struct {
		DailyLimit int64 `json:"daily_limit"`
		Used       int64 `json:"used"`
		Remain     int64 `json:"remain"`
	}
	type rate struct {
		CallCount     int64 `json:"call_count"`
		RefreshSecond int64 `json:"refresh_second"`
	}
	limit := cmp.Or(ep.quota.daily, dailyLimit)
	q := quota{DailyLimit: limit, Remain: limit}
	if c.acc != nil {
		n := c.used(c.acc, ep).Count
		limit = c.limit(c.acc, ep)
		q = quota{limit, n, max(0, limit-n)}
	}
	return struct {
		okReply
		Quota         quota `json:"quota"`
		RateLimit     rate  `json:"rate_limit"`
		ComponentRate rate  `json:"component_rate_limit"`
	}{ok, q, rate{1000, 60}, rate{5000, 60}}, nil
}

func (s *Server) endpointOf(path string) (endpoint, bool) {
	for _, ep := range s.endpoints() {
		if ep.path == path {
			return ep, true
		}
	}
	return endpoint{}, false
}
