package sandbox

import (
	"net/http"
	"strings"
	"time"
)

// dailyLimit is of a path that an account sets no own limit for; WeChat publishes none for these calls.
const dailyLimit = 10_000

var beijing = time.FixedZone("Asia/Shanghai", 8*60*60)

// Quota queries (platform.md §10).
func quotaEndpoints() []endpoint {
	return []endpoint{
		{method: http.MethodPost, path: "/cgi-bin/openapi/quota/get", token: tokenEither, serve: getQuota},
	}
}

func (s *Server) limit(acc *account, path string) int64 {
	if n, set := acc.DailyLimits[path]; set {
		return n
	}
	return dailyLimit
}

func (s *Server) used(acc *account, path string) *usage {
	u := s.st.usage.get(acc.AppID + " " + path)
	if day := s.now().In(beijing).Format(time.DateOnly); u == nil || u.Day != day {
		u = &usage{Day: day} // the day turns at Beijing midnight, by common report
	}
	return u
}

// use counts a call against the account's own daily quota, or refuses it with 45009.
func (s *Server) use(acc *account, path string) error {
	u := s.used(acc, path)
	if u.Count >= s.limit(acc, path) {
		return refuse(45009)
	}
	u.Count++
	s.st.usage.put(acc.AppID+" "+path, u)
	return nil
}

func getQuota(c *call) (any, error) {
	path, isText := c.fields.text("cgi_path")
	if !isText || !strings.HasPrefix(path, "/") {
		return nil, refuse(76003)
	}
	if !c.hasPath(path) {
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
	q := quota{DailyLimit: dailyLimit, Remain: dailyLimit}
	if c.acc != nil {
		n := c.used(c.acc, path).Count
		q = quota{c.limit(c.acc, path), n, max(0, c.limit(c.acc, path)-n)}
	}
	return struct {
		okReply
		Quota         quota `json:"quota"`
		RateLimit     rate  `json:"rate_limit"`
		ComponentRate rate  `json:"component_rate_limit"`
	}{ok, q, rate{1000, 60}, rate{5000, 60}}, nil
}

func (s *Server) hasPath(path string) bool {
	for _, ep := range s.endpoints() {
		if ep.path == path {
			return true
		}
	}
	return false
}
