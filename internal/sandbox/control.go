package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/mendian/mendian/internal/wechat/msgcrypt"
)

// The control API (README.md). Its first part is fixed by architecture.md, "The sandbox".
func (s *Server) routeControl(mux *http.ServeMux) {
	for pattern, serve := range map[string]func(*http.Request) (any, error){
		"POST /_sandbox/authorizations":                 s.controlAuthorize,
		"GET /_sandbox/audits":                          s.controlAudits,
		"POST /_sandbox/audits/{kind}/{id}":             s.controlDecide,
		"GET /_sandbox/faults":                          s.controlFaults,
		"POST /_sandbox/faults":                         s.controlAddFault,
		"DELETE /_sandbox/faults":                       s.controlClearFaults,
		"GET /_sandbox/clock":                           s.controlClock,
		"POST /_sandbox/clock":                          s.controlAdvance,
		"GET /_sandbox/truth":                           s.controlTruth,
		"GET /_sandbox/journal":                         s.controlJournal,
		"GET /_sandbox/pushes":                          s.controlPushes,
		"POST /_sandbox/pushes":                         s.controlHold,
		"POST /_sandbox/pushes/{id}/copies":             s.controlCopies,
		"POST /_sandbox/pushes/{id}/release":            s.controlRelease,
		"POST /_sandbox/component":                      s.controlComponent,
		"GET /_sandbox/component":                       s.controlShowComponent,
		"POST /_sandbox/reset":                          s.controlReset,
		"GET /_sandbox/accounts":                        s.controlAccounts,
		"POST /_sandbox/accounts":                       s.controlAccount,
		"POST /_sandbox/accounts/{appid}/authorize":     s.controlConsoleAuthorize,
		"POST /_sandbox/accounts/{appid}/unauthorize":   s.controlUnauthorize,
		"POST /_sandbox/accounts/{appid}/stores":        s.controlSeedStores,
		"POST /_sandbox/accounts/{appid}/goods":         s.controlSeedGoods,
		"POST /_sandbox/accounts/{appid}/legacy-stores": s.controlSeedLegacy,
		"GET /_sandbox/settings":                        s.controlShowSettings,
		"POST /_sandbox/settings":                       s.controlSettings,
		"POST /_sandbox/credentials":                    s.controlCredentials,
		"POST /_sandbox/messages":                       s.controlMessage,
		"POST /_sandbox/release-check":                  s.controlReleaseCheck,
		"POST /_sandbox/map-pois":                       s.controlSeedPlaces,
	} {
		mux.HandleFunc(pattern, s.control(serve))
	}
	mux.HandleFunc("/_sandbox/", s.control(func(r *http.Request) (any, error) {
		return nil, problem(http.StatusNotFound, "no control call %s %s", r.Method, r.URL.Path)
	}))
}

// controlError is a refusal of the control API, which unlike WeChat uses HTTP statuses.
type controlError struct {
	status int
	msg    string
}

func (e *controlError) Error() string { return e.msg }

func problem(status int, format string, args ...any) error {
	return &controlError{status, fmt.Sprintf(format, args...)}
}

func bad(format string, args ...any) error { return problem(http.StatusBadRequest, format, args...) }

// control answers JSON; a form of the page at / is sent back to it. A page of another origin may not
// post here: the simulator listens on people's own machines.
func (s *Server) control(serve func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var v any
		var err error
		origin, _ := url.Parse(r.Header.Get("Origin"))
		if r.Header.Get("Origin") != "" && (origin == nil || origin.Host != r.Host) {
			err = problem(http.StatusForbidden, "not from another origin")
		} else {
			v, err = serve(r)
		}
		status := http.StatusOK
		if err != nil {
			status = http.StatusInternalServerError
			if e, ok := errors.AsType[*controlError](err); ok {
				status = e.status
			}
			v = map[string]string{"error": err.Error()}
		} else if isForm(r) {
			answer{status: http.StatusSeeOther, location: "/"}.write(w)
			return
		}
		body, err := marshal(v)
		if err != nil {
			serverError(err).write(w)
			return
		}
		answer{status, "application/json", "", append(body, '\n')}.write(w)
	}
}

func isForm(r *http.Request) bool {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return kind == "application/x-www-form-urlencoded"
}

// read decodes the body over what v holds, so that absent members keep their value. Unknown members
// are refused: a misspelt fault would test nothing. curl -d without a header sends JSON as a form.
func read(r *http.Request, v any) error {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	if err != nil {
		return bad("body: %v", err)
	}
	if isForm(r) && !strings.HasPrefix(strings.TrimSpace(string(body)), "{") {
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return bad("form: %v", err)
		}
		members := map[string]any{}
		for name := range form {
			members[name] = form.Get(name)
			if b, err := strconv.ParseBool(form.Get(name)); err == nil {
				members[name] = b
			}
		}
		if body, err = json.Marshal(members); err != nil {
			return err
		}
	} else if isForm(r) {
		r.Header.Set("Content-Type", "application/json")
	}
	if len(strings.TrimSpace(string(body))) == 0 {
		body = []byte("{}")
	}
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return bad("body: %v", err)
	}
	return nil
}

// change runs fn under the lock and commits.
func (s *Server) change(fn func() (any, error)) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil, problem(http.StatusServiceUnavailable, "the simulator has stopped")
	}
	v, err := fn()
	return v, errors.Join(err, s.commit())
}

// changeAccount is change of the account that the path names.
func (s *Server) changeAccount(r *http.Request, fn func(*account) (any, error)) (any, error) {
	return s.change(func() (any, error) {
		a, err := s.known(r)
		if err != nil {
			return nil, err
		}
		return fn(a)
	})
}

var appidRE = regexp.MustCompile(`^wx[0-9a-f]{16}$`)

// controlAuthorize consents as an account; an appid that is not known yet becomes an Official Account
// that grants {8, 11, 13} and has an approved store program.
func (s *Server) controlAuthorize(r *http.Request) (any, error) {
	var in struct{ AppID, URL string }
	if err := read(r, &in); err != nil {
		return nil, err
	}
	if !appidRE.MatchString(in.AppID) {
		return nil, bad("appid must be wx and 16 hex digits")
	}
	if _, err := s.change(func() (any, error) {
		if s.st.accounts.get(in.AppID) == nil {
			s.makeAccount(in.AppID, officialAccount, "Account "+in.AppID, []int{8, 11, 13})
		}
		return nil, nil
	}); err != nil {
		return nil, err
	}
	v, err := s.consentBy(r.Context(), in.AppID, in.URL, r.Host)
	if err != nil {
		return nil, problem(http.StatusBadGateway, "%v", err)
	}
	return v, nil
}

func (s *Server) controlAudits(r *http.Request) (any, error) {
	status := r.URL.Query().Get("status")
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.st.audits.sorted(func(a *audit) bool { return status == "" || a.Status == status }, bySeq)
	out := make([]audit, len(list))
	for i, a := range list {
		out[i] = *a
	}
	return map[string]any{"audits": out}, nil
}

var decisions = map[string]string{
	"approve": auditApproved, "reject": auditRejected, "admin_reject": auditAdminRejected, "confirm": "", "expire": auditExpired,
}

// controlDecide decides an audit, or is the administrator who confirms a store program, or never does.
func (s *Server) controlDecide(r *http.Request) (any, error) {
	var in struct{ Decision, Reason string }
	if err := read(r, &in); err != nil {
		return nil, err
	}
	decision, known := decisions[in.Decision]
	kind := auditKind(r.PathValue("kind"))
	judged := decision == auditApproved || decision == auditRejected
	switch {
	case !known:
		return nil, bad("decision must be approve or reject; of a store_program also confirm, admin_reject or expire")
	case !judged && kind != auditStoreProgram:
		return nil, bad("only a store_program waits for its administrator")
	}
	return s.change(func() (any, error) {
		a := s.st.audits.get(string(kind) + "/" + r.PathValue("id"))
		switch {
		case a == nil:
			return nil, problem(http.StatusNotFound, "no such audit")
		case a.Status != auditPending:
			return nil, problem(http.StatusConflict, "already %s", a.Status)
		case a.AwaitsAdmin && judged:
			return nil, problem(http.StatusConflict, "it waits for the administrator: confirm, admin_reject or expire")
		case !a.AwaitsAdmin && (in.Decision == "confirm" || in.Decision == "expire"):
			return nil, problem(http.StatusConflict, "its administrator has confirmed it")
		}
		switch in.Decision {
		case "confirm":
			s.confirmProgram(a)
		case "expire":
			s.expireProgram(a)
		default:
			s.decide(a, decision, in.Reason)
		}
		return *a, nil
	})
}

func (s *Server) controlFaults(*http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []fault{}
	for _, f := range s.faults {
		out = append(out, *f)
	}
	return map[string]any{"faults": out}, nil
}

func (s *Server) controlAddFault(r *http.Request) (any, error) {
	f := &fault{N: 1}
	if err := read(r, f); err != nil {
		return nil, err
	}
	switch {
	case f.Path == "":
		return nil, bad("path is missing")
	case f.N < 1 || f.DelayMS < 0:
		return nil, bad("n must be at least 1, delay_ms at least 0")
	case f.HTTPStatus != 0 && (f.HTTPStatus < 200 || f.HTTPStatus > 599):
		return nil, bad("http_status must be 200 to 599")
	case !f.replaces() && f.DelayMS == 0 && !f.DropReply && f.TruncateTo == nil:
		return nil, bad("a fault needs errcode, delay_ms, drop_reply, http_status, body or truncate_to")
	}
	return s.change(func() (any, error) {
		s.faults = append(s.faults, f)
		return *f, nil
	})
}

func (s *Server) controlClearFaults(*http.Request) (any, error) {
	return s.change(func() (any, error) {
		s.faults = nil
		return map[string]any{"faults": []fault{}}, nil
	})
}

type clockReply struct {
	Virtual time.Time `json:"virtual"`
	Wall    time.Time `json:"wall"`
	Offset  string    `json:"offset"`
}

func (s *Server) clock() clockReply {
	return clockReply{s.now().UTC(), time.Now().UTC(), s.st.ClockOffset.String()}
}

func (s *Server) controlClock(*http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clock(), nil
}

// controlAdvance moves the virtual clock; what falls due is decided before the answer.
func (s *Server) controlAdvance(r *http.Request) (any, error) {
	var in struct{ Advance string }
	if err := read(r, &in); err != nil {
		return nil, err
	}
	d, err := time.ParseDuration(in.Advance)
	if err != nil || d < 0 {
		return nil, bad("advance must be a duration such as 72h, and not negative")
	}
	return s.change(func() (any, error) {
		s.st.ClockOffset += d
		s.st.saveMeta()
		s.decideDue()
		if d >= 10*time.Minute {
			s.nextTick = time.Time{} // a ticket would have come meanwhile
		}
		return s.clock(), nil
	})
}

func (s *Server) controlTruth(*http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids, effects := []truthID{}, []effect{}
	for _, t := range s.st.truthIDs.sorted(nil, bySeq) {
		ids = append(ids, *t)
	}
	for _, e := range s.st.effects.sorted(nil, bySeq) {
		effects = append(effects, *e)
	}
	return map[string]any{"ids": ids, "effects": effects}, nil
}

func (s *Server) controlJournal(r *http.Request) (any, error) {
	q := r.URL.Query()
	since, err := strconv.ParseInt("0"+q.Get("since"), 10, 64)
	if err != nil {
		return nil, bad("since must be a seq")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return map[string]any{"requests": s.journal.since(since, q.Get("path"))}, nil
}

func (s *Server) controlPushes(*http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pushList(), nil
}

func (s *Server) pushList() map[string]any {
	out := []push{}
	for _, p := range s.st.pushes.sorted(nil, bySeq) {
		out = append(out, *p)
	}
	return map[string]any{"hold": s.st.Hold, "pushes": out}
}

func (s *Server) controlHold(r *http.Request) (any, error) {
	var in struct{ Hold *bool }
	if err := read(r, &in); err != nil {
		return nil, err
	}
	if in.Hold == nil {
		return nil, bad("hold must be true or false")
	}
	return s.change(func() (any, error) {
		s.st.Hold = *in.Hold
		s.st.saveMeta()
		return s.pushList(), nil
	})
}

// controlCopies sends a push again, n times, as WeChat does now and then.
func (s *Server) controlCopies(r *http.Request) (any, error) {
	in := struct{ N int }{1}
	if err := read(r, &in); err != nil {
		return nil, err
	}
	return s.change(func() (any, error) {
		p := s.st.pushes.get(r.PathValue("id"))
		if p == nil {
			return nil, problem(http.StatusNotFound, "no such push")
		}
		for range in.N {
			id := s.st.next("push", 1)
			c := &push{ID: id, AppID: p.AppID, Name: p.Name, XML: p.XML, Status: pushQueued, CreatedAt: time.Now(), NextAt: time.Now()}
			s.st.pushes.put(strconv.FormatInt(id, 10), c)
		}
		return s.pushList(), nil
	})
}

// controlRelease lets one push out although pushes are held: that is how their order is changed.
func (s *Server) controlRelease(r *http.Request) (any, error) {
	return s.change(func() (any, error) {
		p := s.st.pushes.get(r.PathValue("id"))
		if p == nil {
			return nil, problem(http.StatusNotFound, "no such push")
		}
		p.Released = true
		s.st.pushes.put(r.PathValue("id"), p)
		return *p, nil
	})
}

// controlComponent makes the simulator serve a component; absent members keep their value. A new
// appid is a new platform: authorizations, tokens and tickets of the old one are gone.
func (s *Server) controlComponent(r *http.Request) (any, error) {
	s.mu.Lock()
	in := s.st.Component
	s.mu.Unlock()
	if err := read(r, &in); err != nil {
		return nil, err
	}
	if !appidRE.MatchString(in.AppID) || in.Secret == "" || in.MessageToken == "" {
		return nil, bad("appid must be wx and 16 hex digits, secret and message_token not empty")
	}
	for _, k := range []string{in.EncodingAESKey, in.PreviousEncodingAESKey} {
		if _, err := msgcrypt.ParseKey(k); err != nil && k != "" {
			return nil, bad("%v", err)
		}
	}
	for _, raw := range []string{in.PushURL, in.EventURL} {
		if u, err := url.Parse(raw); raw != "" && (err != nil || u.Host == "") {
			return nil, bad("%q is not an absolute URL", raw)
		}
	}
	return s.change(func() (any, error) {
		if in.AppID != s.st.Component.AppID {
			s.st.forgetComponent()
		}
		s.st.Component = in
		s.st.saveMeta()
		s.nextTick = time.Time{}
		return in, nil
	})
}

func (s *Server) controlShowComponent(*http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.st.Component, nil
}

func (st *state) forgetComponent() {
	for k := range st.auths.rows {
		st.auths.del(k)
	}
	for k := range st.tokens.rows {
		st.tokens.del(k)
	}
	for k := range st.tickets.rows {
		st.tickets.del(k)
	}
	for k := range st.preauths.rows {
		st.preauths.del(k)
	}
	for k := range st.codes.rows {
		st.codes.del(k)
	}
	for k := range st.pushes.rows {
		st.pushes.del(k)
	}
}

func (s *Server) controlReset(*http.Request) (any, error) {
	return s.change(func() (any, error) {
		lastPush := s.st.LastID["push"] // pushes under way are known by their ids
		s.st.clear()
		s.st.LastID["push"] = lastPush
		s.journal, s.faults, s.nextTick = journal{}, nil, time.Time{}
		s.reseed()
		s.seedDefaults()
		return map[string]bool{"reset": true}, s.st.rewriteIfFile()
	})
}
