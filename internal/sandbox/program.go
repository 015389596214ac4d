package sandbox

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// The store mini program of an Official Account (wechat/000 §4.2 to §4.4).
func programEndpoints() []endpoint {
	ep := func(method, path string, program bool, serve func(*call) (any, error)) endpoint {
		return endpoint{
			method: method, path: "/wxa/" + path, token: tokenAuthorizer,
			sets: storeSets, kind: officialAccount, program: program, serve: serve,
		}
	}
	return []endpoint{
		ep(http.MethodPost, "apply_merchant", false, applyMerchant),
		ep(http.MethodGet, "get_merchant_audit_info", false, getMerchantAuditInfo),
		ep(http.MethodPost, "modify_merchant", true, modifyMerchant),
	}
}

const (
	confirmWithin = 24 * time.Hour // wechat/000 §4.2, Note
	// monthlyChanges is how often the profile photo, and how often the introduction, may be changed in a
	// month. The documents say that there is a limit, not what it is.
	monthlyChanges = 5
)

// magicRefusals are codes that depend on what the simulator does not model, such as other merchants'
// names: a nickname that ends in one of them is refused with it (wechat/000 §4.2).
var magicRefusals = []int{85025, 85026, 85027, 85028, 85029, 85031, 85032, 85033, 85034, 85035}

func endsIn(text string, code int) bool { return strings.HasSuffix(text, strconv.Itoa(code)) }

// applyMerchant is wechat/000 §4.2.
func applyMerchant(c *call) (any, error) {
	if c.acc.Individual {
		return nil, refuse(43104) // "open to all non-individual Official Accounts", wechat/000 §2
	}
	p, err := c.application()
	if err != nil {
		return nil, err
	}
	switch c.acc.Program.State {
	case programAwaitingAdmin, programInReview, programApproved:
		return nil, refuse(85050)
	}
	for _, other := range c.st.accounts.rows {
		taken := other.Program.State == programInReview || other.Program.State == programApproved || other.Program.State == programAwaitingAdmin
		if other != c.acc && taken && other.Program.Nickname == p.Nickname {
			return nil, refuse(85029)
		}
	}
	p.State, p.AuditID = programAwaitingAdmin, c.newAuditID()
	c.acc.Program = p
	c.st.accounts.put(c.acc.AppID, c.acc)
	a := &audit{Kind: auditStoreProgram, ID: p.AuditID, AppID: c.acc.AppID, Subject: p.Nickname, AwaitsAdmin: true}
	c.submit(a, confirmWithin, "")
	c.executed("apply_merchant", c.acc.AppID, strconv.FormatInt(p.AuditID, 10), p.Nickname)
	return ok, nil
}

// application is a sound body of apply_merchant.
func (c *call) application() (storeProgram, error) {
	f, p := c.fields, storeProgram{}
	first, ok1 := f.number("first_catid")
	second, ok2 := f.number("second_catid")
	var ok3, ok4, ok5 bool
	p.HeadImg, ok3 = f.text("headimg_mediaid")
	p.Nickname, ok4 = f.text("nickname")
	p.Intro, ok5 = f.text("intro")
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || p.HeadImg == "" || strings.TrimSpace(p.Intro) == "" {
		return p, refuse(40097)
	}
	cat, found := storeCategory(first, second)
	if !found {
		return p, refuse(65120)
	}
	certificates, err := c.mediaList("qualification_list")
	if err != nil {
		return p, err
	}
	if len(cat.certificates) > 0 && len(certificates) == 0 {
		return p, refuse(40097) // "required if the sensitive_type for second_catid is 1"
	}
	others, err := c.mediaList("other_files")
	if err != nil {
		return p, err
	}
	orgCode, err := f.optional("org_code")
	switch {
	case err != nil:
		return p, err
	case c.media(p.HeadImg) == nil || (orgCode != "" && c.media(orgCode) == nil):
		return p, refuse(85056)
	}
	if err := checkNickname(p.Nickname); err != nil {
		return p, err
	}
	if endsIn(p.Nickname, 85024) && (orgCode == "" || len(others) == 0) {
		return p, refuse(85024)
	}
	return p, checkIntro(p.Intro)
}

// checkNickname: 4 to 30 bytes where a Chinese character is two, and nothing special (85030); no
// reserved word (85033); nothing of the rest that the simulator is told by the name itself.
func checkNickname(name string) error {
	if n := width(name); n < 4 || n > 30 || strings.ContainsFunc(name, special) {
		return refuse(85030)
	}
	if lower := strings.ToLower(name); strings.Contains(lower, "wechat") || strings.Contains(lower, "微信") {
		return refuse(85033)
	}
	for _, code := range magicRefusals {
		if endsIn(name, code) {
			return refuse(code)
		}
	}
	return nil
}

func checkIntro(intro string) error {
	if endsIn(intro, 85036) {
		return refuse(85036)
	}
	return nil
}

// special says whether a rune is a "special character", which the documents forbid in names without
// listing any. "McDonald's" and "MOI Dept. Store" are good names in wechat/001 §3.2.
func special(r rune) bool {
	return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r) && !strings.ContainsRune(" '’.·&-_", r)
}

// confirmProgram is the administrator's confirmation: the audit begins.
func (s *Server) confirmProgram(a *audit) {
	a.AwaitsAdmin = false
	s.submit(a, s.auditDelay(), a.Subject)
	acc := s.st.accounts.get(a.AppID)
	acc.Program.State = programInReview
	s.st.accounts.put(acc.AppID, acc)
}

// expireProgram: the administrator did not confirm within a day, so it can be sent again. No event.
func (s *Server) expireProgram(a *audit) {
	now := s.now()
	a.Status, a.Decided = auditExpired, &now
	s.st.audits.put(auditKey(a.Kind, a.ID), a)
	acc := s.st.accounts.get(a.AppID)
	acc.Program = storeProgram{State: programNone}
	s.st.accounts.put(acc.AppID, acc)
}

// programDecided is the event of wechat/000 §4.2.
func (s *Server) programDecided(acc *account, a *audit) {
	acc.Program.State, acc.Program.AuditID, acc.Program.Reason = programFailed, a.ID, a.Reason
	switch a.Status {
	case auditApproved:
		acc.Program.State = programApproved
	case auditAdminRejected:
		acc.Program.State = programAdminRejected
	}
	s.st.accounts.put(acc.AppID, acc)
	if s.st.auths.get(acc.AppID) != nil {
		s.tellProgram(acc, "apply_merchant_audit_info")
	}
	s.event(acc, "apply_merchant_audit_info",
		element{"audit_id", strconv.FormatInt(a.ID, 10), false}, element{"status", auditStatus(a.Status), false},
		element{"reason", a.Reason, true})
}

// tellProgram writes the audit_id to the truth log when it leaves the simulator for the first time.
func (s *Server) tellProgram(acc *account, via string) {
	if p := &acc.Program; !p.Told && p.AuditID != 0 {
		p.Told = true
		s.st.accounts.put(acc.AppID, acc)
		s.told("audit_id", strconv.FormatInt(p.AuditID, 10), acc.AppID, p.Nickname, via)
	}
}

// getMerchantAuditInfo is wechat/000 §4.3; its statuses are its own (platform.md §11.2). Until the
// administrator has confirmed there is no audit: "not submitted".
func getMerchantAuditInfo(c *call) (any, error) {
	type data struct {
		AuditID int64  `json:"audit_id"`
		Status  int    `json:"status"`
		Reason  string `json:"reason"`
	}
	p := &c.acc.Program
	d := data{AuditID: p.AuditID, Reason: p.Reason}
	switch p.State {
	case programApproved:
		d.Status = 1
	case programInReview:
		d.Status = 2
	case programFailed:
		d.Status = 3
	case programAdminRejected:
		d.Status = 4
	default:
		d = data{}
	}
	if d.AuditID != 0 {
		c.tellProgram(c.acc, "wxa/get_merchant_audit_info")
	}
	return struct {
		okReply
		Data data `json:"data"`
	}{ok, d}, nil
}

// modifyMerchant is wechat/000 §4.4: both members are required, an empty one changes nothing.
func modifyMerchant(c *call) (any, error) {
	head, ok1 := c.fields.text("headimg_mediaid")
	intro, ok2 := c.fields.text("intro")
	switch {
	case c.acc.Individual:
		return nil, refuse(43104)
	case !ok1 || !ok2:
		return nil, refuse(40097)
	case head != "" && c.media(head) == nil:
		return nil, refuse(85056)
	}
	if err := checkIntro(intro); err != nil {
		return nil, err
	}
	p := &c.acc.Program
	if month := c.at.In(beijing).Format("2006-01"); p.Month != month {
		p.Month, p.Changes = month, nil
	}
	type change struct {
		name, value string
		to          *string
	}
	changes := []change{{"headimg_mediaid", head, &p.HeadImg}, {"intro", intro, &p.Intro}}
	changes = slices.DeleteFunc(changes, func(v change) bool { return v.value == "" })
	for _, v := range changes {
		if p.Changes[v.name] >= monthlyChanges {
			return nil, refuse(85049)
		}
	}
	if len(changes) == 0 {
		return ok, nil
	}
	names := make([]string, len(changes))
	counts := map[string]int{}
	maps.Copy(counts, p.Changes)
	for i, v := range changes {
		*v.to, names[i] = v.value, v.name
		counts[v.name]++
	}
	p.Changes = counts
	c.st.accounts.put(c.acc.AppID, c.acc)
	c.executed("modify_merchant", c.acc.AppID, "", strings.Join(names, ","))
	return ok, nil
}
