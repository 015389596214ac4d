package handlers

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"html/template"
	"net/http"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/problem"
)

// connectRoutes are the pages that a merchant's administrator sees: our button,
// and where WeChat sends the browser back to. Their addresses hold the link's
// secret and WeChat's code, so none of them is cached, shown in a frame, or
// named to other sites.
func (s *Server) connectRoutes(e *echo.Echo) {
	e.GET("/connect/:state", s.showLink)
	e.POST("/connect/:state", s.clickLink)
	e.GET("/connect/:state/callback", s.callback)
}

// showLink is GET /connect/{state}: a button. Opening it spends nothing, so
// that previews of the link don't either. WeChat wants to see our origin as
// Referer when the button leads there (platform.md §4.2).
func (s *Server) showLink(c echo.Context) error {
	r := c.Request()
	connect, err := s.Authorizer.Show(r.Context(), c.Param("state"))
	if err != nil {
		return s.problemPage(c, err)
	}
	s.browser(c)
	mobile := wantsMobile(r.UserAgent(), c.QueryParam("page"))
	p := connectView{Tenant: connect.TenantName, Link: &connect.Link, Page: "computer", Other: "phone"}
	if mobile {
		p.Page, p.Other = p.Other, p.Page
	}
	return s.connectPage(c, http.StatusOK, "origin", p)
}

// clickLink is POST /connect/{state}: the button. It leads to WeChat.
func (s *Server) clickLink(c echo.Context) error {
	r := c.Request()
	r.Body = http.MaxBytesReader(c.Response(), r.Body, 4<<10)
	to, err := s.Authorizer.Click(r.Context(), c.Param("state"), s.browser(c), wantsMobile(r.UserAgent(), c.FormValue("page")))
	if err != nil {
		return s.problemPage(c, err)
	}
	s.pageHeaders(c, "origin")
	return c.Redirect(http.StatusSeeOther, to)
}

// callback is GET /connect/{state}/callback: WeChat sends the browser here
// with the authorization code.
func (s *Server) callback(c echo.Context) error {
	back, err := s.Authorizer.Callback(c.Request().Context(), c.Param("state"), c.QueryParam("auth_code"), s.sentBrowser(c))
	if err != nil {
		return s.problemPage(c, err)
	}
	if back.ReturnTo != "" {
		s.pageHeaders(c, "no-referrer")
		return c.Redirect(http.StatusSeeOther, back.ReturnTo)
	}
	p := connectView{Tenant: back.TenantName, Done: back.Status == authorizer.LinkAuthorized, Pending: back.Status != authorizer.LinkAuthorized}
	return s.connectPage(c, http.StatusOK, "no-referrer", p)
}

// sentBrowser is what the browser's cookie says; empty: it has none.
func (s *Server) sentBrowser(c echo.Context) string {
	name, _ := s.Authorizer.BrowserCookie()
	cookie, err := c.Cookie(name)
	if err != nil || len(cookie.Value) > 100 {
		return ""
	}
	return cookie.Value
}

// browser is sentBrowser, and gives the browser a cookie if it has none.
func (s *Server) browser(c echo.Context) string {
	if v := s.sentBrowser(c); v != "" {
		return v
	}
	name, secure := s.Authorizer.BrowserCookie()
	v := authorizer.NewBrowser()
	c.SetCookie(&http.Cookie{ // #nosec G124 -- Secure wherever our own URL is https
		Name: name, Value: v, Path: "/", MaxAge: 7 * 24 * 60 * 60, Secure: secure, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
	return v
}

// wantsMobile chooses WeChat's page: the one for phones, or the one with a
// code to scan. chosen is the page's own switch.
func wantsMobile(userAgent, chosen string) bool {
	switch chosen {
	case "phone":
		return true
	case "computer":
		return false
	}
	for _, mark := range []string{"MicroMessenger", "Mobile", "Android", "iPhone"} {
		if strings.Contains(userAgent, mark) {
			return true
		}
	}
	return false
}

// problemPage is an error as a person in a browser sees it.
func (s *Server) problemPage(c echo.Context, err error) error {
	st := stateOf(c.Request().Context())
	p := asProblem(st, authorizer.Problem(err))
	if st != noState {
		st.problem, st.err = p, p.Err
	}
	title, detail := problem.Text(p.Code, st.language())
	if seconds := retryAfter(p); seconds > 0 {
		c.Response().Header().Set("Retry-After", strconv.FormatInt(seconds, 10))
	}
	return s.connectPage(c, p.Kind.Status(), "no-referrer", connectView{Title: title, Detail: detail, RequestID: st.requestID})
}

// A connectView is what a page shows: the button of a link, its end, or a problem.
type connectView struct {
	Lang          string
	Tenant        string
	Link          *authorizer.Link
	Page, Other   string // "phone" or "computer"
	Done, Pending bool
	Title, Detail string // of a problem
	RequestID     string
	Style         template.CSS
	Text          map[string]string
}

func (s *Server) connectPage(c echo.Context, status int, referrer string, p connectView) error {
	p.Lang = stateOf(c.Request().Context()).language()
	p.Style, p.Text = connectStyle, connectText[p.Lang]
	var b bytes.Buffer
	if err := connectTemplate.Execute(&b, p); err != nil {
		return err
	}
	s.pageHeaders(c, referrer)
	c.Response().Header().Set("Content-Language", p.Lang)
	c.Response().Header().Add("Vary", "Accept-Language, User-Agent")
	return c.HTMLBlob(status, b.Bytes())
}

// pageHeaders: the page is a form and a style, nothing else. Browsers hold a
// form's redirect to form-action too, so WeChat's pages stand in it.
func (s *Server) pageHeaders(c echo.Context, referrer string) {
	cfg := s.Authorizer.Config
	h := c.Response().Header()
	h.Set("Referrer-Policy", referrer)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Frame-Options", "DENY")
	h.Set("X-Robots-Tag", "noindex")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src '"+connectStyleHash+"'; form-action 'self' "+cfg.MPURL+" "+cfg.OpenURL+
		"; frame-ancestors 'none'; base-uri 'none'")
}

const connectStyle = `body{font:16px/1.6 system-ui,sans-serif;margin:0;background:#f4f5f7;color:#1d2129}
main{max-width:26rem;margin:12vh auto;padding:2rem;background:#fff;border-radius:.8rem;box-shadow:0 1px 8px #0002}
h1{font-size:1.25rem;margin:0 0 .8rem}p{margin:.6rem 0}small{color:#6b7280}
button{font:inherit;width:100%;padding:.8rem;margin:1rem 0 .4rem;border:0;border-radius:.5rem;background:#07c160;color:#fff;cursor:pointer}`

var connectStyleHash = func() string {
	sum := sha256.Sum256([]byte(connectStyle))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}()

var connectText = map[string]map[string]string{
	"en": {
		"title": "Authorise", "ask": "wants to act for your WeChat account.",
		"then":   "The button leads to WeChat, where you choose the account and what it grants. You can withdraw this at any time in WeChat's console.",
		"button": "Continue at WeChat", "phone": "Show the page for phones", "computer": "Show the page with a code to scan",
		"done": "Done", "doneText": "The account is authorised. You can close this page.",
		"pending": "Almost done", "pendingText": "WeChat will confirm the authorisation in a moment. You can close this page.",
		"request": "Request",
	},
	"zh": {
		"title": "授权", "ask": "申请代表您的微信账号进行操作。",
		"then":   "点击按钮将前往微信，由您选择账号和授予的权限。您可随时在微信后台取消授权。",
		"button": "前往微信授权", "phone": "显示手机授权页", "computer": "显示扫码授权页",
		"done": "授权完成", "doneText": "账号已授权，可以关闭此页面。",
		"pending": "即将完成", "pendingText": "微信稍后将确认此次授权，可以关闭此页面。",
		"request": "请求编号",
	},
}

var connectTemplate = template.Must(template.New("connect").Parse(`<!doctype html>
<html lang="{{.Lang}}">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{{if .Title}}{{.Title}}{{else}}{{.Text.title}}{{end}}</title><style>{{.Style}}</style></head>
<body><main>
{{if .Link}}<h1>{{.Text.title}}</h1>
<p><strong>{{.Tenant}}</strong> {{.Text.ask}}</p>
<p>{{.Text.then}}</p>
<form method="post"><input type="hidden" name="page" value="{{.Page}}"><button>{{.Text.button}}</button></form>
<p><small><a href="?page={{.Other}}">{{index .Text .Other}}</a></small></p>
{{else if .Done}}<h1>{{.Text.done}}</h1>
<p>{{.Text.doneText}}</p>
{{else if .Pending}}<h1>{{.Text.pending}}</h1>
<p>{{.Text.pendingText}}</p>
{{else}}<h1>{{.Title}}</h1>
<p>{{.Detail}}</p>
<p><small>{{.Text.request}}: {{.RequestID}}</small></p>
{{end}}</main></body>
</html>
`))
