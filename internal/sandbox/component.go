package sandbox

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"time"
)

const (
	tokenLife   = 7200 * time.Second
	tokenGrace  = 300 * time.Second // of the token before the newest one (platform.md §3, §5.2)
	ticketLife  = 12 * time.Hour
	preauthLife = 1800 * time.Second
	codeLife    = 3600 * time.Second
)

// The component's own calls (platform.md §2, §3, §4.1).
func componentEndpoints() []endpoint {
	return []endpoint{
		{method: http.MethodPost, path: "/cgi-bin/component/api_start_push_ticket", serve: startPushTicket},
		{method: http.MethodPost, path: "/cgi-bin/component/api_component_token", serve: componentToken},
		{method: http.MethodPost, path: "/cgi-bin/component/api_create_preauthcode", token: tokenComponent, serve: createPreauthCode},
	}
}

// credentials checks appid and secret: 41018 or 41004 missing, 40013, 61011 or 40125 wrong.
func (c *call) credentials(secretField string) error {
	appid, _ := c.fields.text("component_appid")
	secret, _ := c.fields.text(secretField)
	switch {
	case appid == "":
		return refuse(41018)
	case appid != c.st.Component.AppID && c.st.accounts.get(appid) != nil:
		return refuse(61011) // an account's appid, not a component's
	case appid != c.st.Component.AppID:
		return refuse(40013)
	case secret == "":
		return refuse(41004)
	case subtle.ConstantTimeCompare([]byte(secret), []byte(c.st.Component.Secret)) != 1:
		return refuse(40125)
	}
	return nil
}

// startPushTicket is platform.md §2.2.
func startPushTicket(c *call) (any, error) {
	if err := c.credentials("component_secret"); err != nil {
		return nil, err
	}
	if !c.st.Settings.TicketsStopped {
		return okReply{0, "component_verify_ticket push is in a normal state"}, nil
	}
	c.st.Settings.TicketsStopped = false
	c.st.saveMeta()
	c.nextTick = time.Time{} // WeChat waits for its next cycle, which is ten minutes; ours is now
	return ok, nil
}

// componentToken is platform.md §3.
func componentToken(c *call) (any, error) {
	if err := c.credentials("component_appsecret"); err != nil {
		return nil, err
	}
	value, _ := c.fields.text("component_verify_ticket")
	t := c.st.tickets.get(value)
	switch {
	case t == nil || t.Rejected:
		return nil, refuse(61006)
	case c.at.Sub(t.Issued) > ticketLife:
		return nil, refuse(61005)
	}
	return struct {
		Token     string `json:"component_access_token"`
		ExpiresIn int    `json:"expires_in"`
	}{c.issueToken("", 0), int(tokenLife.Seconds())}, nil
}

// createPreauthCode is platform.md §4.1.
func createPreauthCode(c *call) (any, error) {
	code := "preauthcode@@@" + random(64)
	c.st.preauths.put(code, &preauth{Expires: c.at.Add(preauthLife)})
	return struct {
		Code      string `json:"pre_auth_code"`
		ExpiresIn int    `json:"expires_in"`
	}{code, int(preauthLife.Seconds())}, nil
}

// issueToken makes the newest access token of the component (appid "") or an account, and ends the
// ones before it: in five minutes, or at once with the grace off. What is long dead is dropped.
func (s *Server) issueToken(appid string, authSeq int64) string {
	now := s.now()
	end := now.Add(tokenGrace)
	if s.st.Settings.TokenGraceOff {
		end = now
	}
	for value, t := range s.st.tokens.rows {
		switch {
		case now.Sub(t.Expires) > 24*time.Hour:
			s.st.tokens.del(value)
		case t.AppID == appid && (t.NotLatestFrom.IsZero() || end.Before(t.NotLatestFrom)):
			t.NotLatestFrom = end
			s.st.tokens.put(value, t)
		}
	}
	value := random(136)
	s.st.tokens.put(value, &token{AppID: appid, AuthSeq: authSeq, Expires: now.Add(tokenLife)})
	return value
}

// ticketDue pushes a ticket if it is time, and says when the next one is.
func (s *Server) ticketDue() time.Duration {
	if s.st.Component.eventURL() == "" || s.st.Settings.TicketsStopped || s.st.Hold {
		return time.Hour
	}
	now := time.Now()
	if !now.Before(s.nextTick) {
		s.pushTicket()
		s.nextTick = now.Add(s.cfg.TicketInterval)
	}
	return s.nextTick.Sub(now)
}

func (s *Server) pushTicket() { s.queue("", "component_verify_ticket", s.newTicket()) }

// newTicket makes a ticket and the event that brings it.
func (s *Server) newTicket() string {
	now := s.now()
	for value, t := range s.st.tickets.rows {
		if now.Sub(t.Issued) > ticketLife+time.Hour { // the hour is for answering 61005
			s.st.tickets.del(value)
		}
	}
	value := "ticket@@@" + random(86)
	s.st.tickets.put(value, &ticket{Seq: s.st.next("ticket", 1), Value: value, Issued: now})
	return componentXML(s.st.Component.AppID, "component_verify_ticket", element{"ComponentVerifyTicket", value, true})
}

// random is n characters of a credential, always unpredictable, whatever the seed.
func random(n int) string {
	b := make([]byte, (n*6+7)/8)
	_, _ = rand.Read(b) // never fails, by its contract
	return base64.RawURLEncoding.EncodeToString(b)[:n]
}
