package sandbox

import (
	"bytes"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// consentPaths are the pages on which an administrator consents: PC, H5, and H5's older address
// (platform.md §4.2).
var consentPaths = []string{"/cgi-bin/componentloginpage", "/wxaopen/safe/bindcomponent", "/safe/bindcomponent"}

var consentTemplate = template.Must(template.New("consent").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Authorize {{.Component}}</title></head>
<body><h1>Authorize {{.Component}}</h1>
{{if .Problem}}<p class="problem">{{.Problem}}</p>{{else}}
<p>Which account of yours do you authorize? (This is the simulator's page; at WeChat you would scan a code.)</p>
{{range .Accounts}}<form method="post"><input type="hidden" name="appid" value="{{.AppID}}">
<button>{{.Nickname}} ({{.Kind}}, {{.AppID}})</button></form>
{{end}}{{end}}</body></html>
`))

func (s *Server) consentRefused(why string) answer { return s.consentHTML(why, nil) }

func (s *Server) consentHTML(problem string, accounts []*account) answer {
	var b bytes.Buffer
	err := consentTemplate.Execute(&b, struct {
		Component, Problem string
		Accounts           []*account
	}{s.st.Component.AppID, problem, accounts})
	if err != nil {
		return serverError(err)
	}
	return answer{http.StatusOK, "text/html; charset=utf-8", "", b.Bytes()}
}

// consentPage shows the accounts that fit (GET), or consents as one of them (POST) and goes back to
// redirect_uri with auth_code and expires_in. Like WeChat it wants to be reached by a link on the
// host of redirect_uri; its own form is exempt.
func (s *Server) consentPage(r *http.Request, body []byte) answer {
	q := r.URL.Query()
	code := s.st.preauths.get(q.Get("pre_auth_code"))
	redirect, err := url.Parse(q.Get("redirect_uri"))
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodPost:
		return answer{status: http.StatusMethodNotAllowed}
	case q.Get("component_appid") != s.st.Component.AppID:
		return s.consentRefused("component_appid is not this component's")
	case code == nil || code.Used:
		return s.consentRefused("pre_auth_code is unknown or used: each serves one authorization")
	case !s.now().Before(code.Expires):
		return s.consentRefused("pre_auth_code is expired")
	case err != nil || redirect.Host == "" || (redirect.Scheme != "http" && redirect.Scheme != "https"):
		return s.consentRefused("redirect_uri is not an absolute http(s) URL")
	case strings.HasSuffix(r.URL.Path, "/bindcomponent") && (q.Get("action") != "bindcomponent" || q.Get("no_scan") != "1"):
		return s.consentRefused("the H5 page needs action=bindcomponent and no_scan=1")
	}
	accounts, why := s.fitting(q)
	if why != "" {
		return s.consentRefused(why)
	}
	if r.Method == http.MethodGet {
		ref, err := url.Parse(r.Referer())
		if r.Referer() == "" || err != nil || ref.Host != redirect.Host {
			return s.consentRefused("please open this page by a link on the registered domain: the Referer is " +
				strconv.Quote(r.Referer()) + ", redirect_uri is on " + redirect.Host)
		}
		return s.consentHTML("", accounts)
	}

	form, err := url.ParseQuery(string(body))
	i := slices.IndexFunc(accounts, func(a *account) bool { return a.AppID == form.Get("appid") })
	if err != nil || i < 0 {
		return s.consentRefused("the account does not fit auth_type or biz_appid")
	}
	code.Used = true
	s.st.preauths.put(q.Get("pre_auth_code"), code)
	sets := accounts[i].Sets
	if asked := q.Get("category_id_list"); asked != "" {
		wanted := strings.Split(asked, "|")
		sets = slices.DeleteFunc(slices.Clone(sets), func(id int) bool { return !slices.Contains(wanted, strconv.Itoa(id)) })
	}
	back := redirect.Query()
	back.Set("auth_code", s.authorize(accounts[i], sets, q.Get("pre_auth_code")))
	back.Set("expires_in", strconv.Itoa(int(codeLife.Seconds())))
	redirect.RawQuery = back.Encode()
	return answer{status: http.StatusFound, location: redirect.String()}
}

// fitting is the accounts that auth_type and biz_appid let consent; biz_appid wins.
func (s *Server) fitting(q url.Values) (fit []*account, why string) {
	if id := q.Get("biz_appid"); id != "" {
		a := s.st.accounts.get(id)
		if a == nil {
			return nil, "biz_appid names no account of this administrator"
		}
		return []*account{a}, ""
	}
	kinds := map[string][]accountKind{
		"1": {officialAccount}, "2": {miniProgram}, "3": {officialAccount, miniProgram}, "6": {officialAccount, miniProgram},
		"4": {}, "5": {}, "8": {}, // account kinds that the simulator has none of
	}
	kind, known := kinds[q.Get("auth_type")]
	if !known {
		return nil, "auth_type is missing or unknown"
	}
	return s.st.accounts.sorted(func(a *account) bool { return slices.Contains(kind, a.Kind) }, bySeq), ""
}
