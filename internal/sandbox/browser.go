package sandbox

import (
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// browser plays the administrator: it opens a link, presses the first button, consents on our page and
// follows where that leads, with cookies and with the Referer a browser of today would send.
type browser struct {
	client *http.Client
	hosts  []string // it goes nowhere else
	appid  string
	ours   []string // hosts under which this simulator is called

	page      *http.Response
	body      string
	consented bool
}

// visit is the answer of POST /_sandbox/authorizations.
type visit struct {
	Status       int    `json:"status"`
	FinalURL     string `json:"final_url"`
	AuthCodeUsed bool   `json:"auth_code_used"`
	Page         string `json:"page"`
}

const maxSteps = 20

func newBrowser(appid string, ours, hosts []string) *browser {
	jar, _ := cookiejar.New(nil) // never fails without options
	return &browser{
		client: &http.Client{
			Jar: jar, Timeout: 30 * time.Second,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		hosts: append(hosts, ours...), appid: appid, ours: ours,
	}
}

// run opens link and goes on until there is nothing left to press or follow.
func (b *browser) run(ctx context.Context, link string) (final string, err error) {
	if err := b.open(ctx, http.MethodGet, link, nil, ""); err != nil {
		return link, err
	}
	for range maxSteps {
		at := b.page.Request.URL
		if to := b.page.Header.Get("Location"); to != "" && b.page.StatusCode/100 == 3 {
			next, err := at.Parse(to)
			if err != nil {
				return to, err
			}
			next.Fragment = ""
			if !hasHost(b.hosts, next.Host) {
				return next.String(), nil
			}
			referer := b.page.Request.Referer()
			if hidesReferer(b.page.Header.Get("Referrer-Policy")) {
				referer = ""
			}
			if err := b.open(ctx, http.MethodGet, next.String(), nil, referer); err != nil {
				return next.String(), err
			}
			continue
		}
		form, action, found := firstForm(b.body)
		consent := hasHost(b.ours, at.Host) && slices.Contains(consentPaths, at.Path)
		switch {
		case consent && !b.consented && found:
			b.consented = true
			form = url.Values{"appid": {b.appid}}
		case b.consented || consent || !found || b.page.StatusCode >= http.StatusBadRequest:
			return at.String(), nil
		}
		to, err := at.Parse(action)
		if err != nil || !hasHost(b.hosts, to.Host) {
			return action, err
		}
		if err := b.open(ctx, http.MethodPost, to.String(), form, b.referer()); err != nil {
			return to.String(), err
		}
	}
	return b.page.Request.URL.String(), errors.New("the link leads on and on")
}

// hasHost looks a host up; the names of this machine are one, since its parts may use different ones.
func hasHost(list []string, host string) bool {
	return slices.ContainsFunc(list, func(h string) bool { return loopback.Replace(h) == loopback.Replace(host) })
}

var loopback = strings.NewReplacer("127.0.0.1", "localhost", "[::1]", "localhost")

func (b *browser) open(ctx context.Context, method, to string, form url.Values, referer string) error {
	req, err := http.NewRequestWithContext(ctx, method, to, strings.NewReader(form.Encode())) //nolint:gosec // going where it is told is its purpose
	if err != nil {
		return err
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Sec-Fetch-Site", "same-origin") // a page's own form; redirects do not come here
		req.Header.Set("Origin", b.page.Request.URL.Scheme+"://"+b.page.Request.URL.Host)
	}
	if referer != "" {
		req.Header.Set("Referer", referer)
	}
	req.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0 Safari/537.36")
	resp, err := b.client.Do(req) //nolint:gosec // likewise
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	b.page, b.body = resp, string(body)
	return err
}

var metaReferrerRE = regexp.MustCompile(`(?i)<meta\s+name="referrer"\s+content="([^"]*)"`)

// referer is what the page now shown lets a browser tell another host: by default its origin, which
// redirects carry along. So a page with `no-referrer` cannot lead to the consent page, as at WeChat.
func (b *browser) referer() string {
	from := b.page.Request.URL
	policy := b.page.Header.Get("Referrer-Policy")
	if m := metaReferrerRE.FindStringSubmatch(b.body); m != nil {
		policy = m[1]
	}
	if hidesReferer(policy) {
		return ""
	}
	return from.Scheme + "://" + from.Host + "/"
}

// hidesReferer: under same-origin too, since the form's own host redirects to another.
func hidesReferer(policy string) bool { return policy == "no-referrer" || policy == "same-origin" }

var (
	formRE   = regexp.MustCompile(`(?is)<form\b([^>]*)>(.*?)</form>`)
	inputRE  = regexp.MustCompile(`(?is)<(?:input|button)\b([^>]*)>`)
	attrRE   = regexp.MustCompile(`(?is)([a-z-]+)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))`)
	tagRE    = regexp.MustCompile(`(?is)<(script|style)\b.*?</(script|style)>|<[^>]*>`)
	spacesRE = regexp.MustCompile(`\s+`)
)

func attributes(tag string) map[string]string {
	out := map[string]string{}
	for _, m := range attrRE.FindAllStringSubmatch(tag, -1) {
		out[strings.ToLower(m[1])] = html.UnescapeString(m[2] + m[3] + m[4])
	}
	return out
}

// firstForm is the fields and the action of the page's first form that is posted, with its first
// button pressed.
func firstForm(page string) (form url.Values, action string, found bool) {
	for _, m := range formRE.FindAllStringSubmatch(page, -1) {
		attrs := attributes(m[1])
		if !strings.EqualFold(attrs["method"], http.MethodPost) {
			continue
		}
		form, pressed := url.Values{}, false
		for _, in := range inputRE.FindAllStringSubmatch(m[2], -1) {
			a := attributes(in[1])
			isButton := a["type"] == "submit" || strings.HasPrefix(strings.ToLower(in[0]), "<button")
			if a["name"] != "" && (!isButton || !pressed) {
				form.Set(a["name"], a["value"])
			}
			pressed = pressed || isButton
		}
		return form, attrs["action"], true
	}
	return nil, "", false
}

// pageText is what a person would read, shortened.
func pageText(page string) string {
	text := strings.TrimSpace(spacesRE.ReplaceAllString(html.UnescapeString(tagRE.ReplaceAllString(page, " ")), " "))
	if len(text) > 400 {
		text = strings.ToValidUTF8(text[:400], "") + "…"
	}
	return text
}

// consentBy opens a link of the gateway and consents as appid (POST /_sandbox/authorizations).
func (s *Server) consentBy(ctx context.Context, appid, link, host string) (visit, error) {
	u, err := url.Parse(link)
	if err != nil || u.Host == "" {
		return visit{}, fmt.Errorf("url %q is not absolute", link)
	}
	base, err := url.Parse(s.cfg.BaseURL)
	if err != nil {
		return visit{}, err
	}
	hosts := []string{u.Host}
	s.mu.Lock()
	if push, err := url.Parse(s.st.Component.PushURL); err == nil && push.Host != "" {
		hosts = append(hosts, push.Host)
	}
	before := s.st.LastID["code"]
	s.mu.Unlock()

	b := newBrowser(appid, []string{base.Host, host}, hosts)
	final, err := b.run(ctx, link)
	if b.page == nil {
		return visit{}, err
	}
	v := visit{Status: b.page.StatusCode, FinalURL: final, Page: pageText(b.body)}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.st.codes.rows {
		v.AuthCodeUsed = v.AuthCodeUsed || (c.AppID == appid && c.Seq > before && c.Used)
	}
	return v, err
}
