package authorizer

import (
	"context"
	"errors"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// The three public steps of a link, for browsers. WeChat's consent page knows
// no state of ours, so the state stands in the path of our own URLs; and
// because a stranger can make a browser open any of them, a callback counts
// only in the browser that pressed our button, or by WeChat's signed push
// (design security.md §6).

// BrowserCookie is the name of the cookie that tells the browser which pressed
// the button. The prefix makes browsers refuse it over http and from
// subdomains; where our own URL is http there is none.
func (a *Authorizer) BrowserCookie() (name string, secure bool) {
	if strings.HasPrefix(a.Config.PublicURL, "https://") {
		return "__Host-gwauth", true
	}
	return "gwauth", false
}

// NewBrowser is a value for that cookie.
func NewBrowser() string { return randomText() }

// A Connect is a link as its page shows it.
type Connect struct {
	Link       Link
	TenantName string
}

var statePattern = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)

// Show finds the link of a state. Errors: link_unknown; link_expired when it was
// used, is over, or its tenant is not active.
func (a *Authorizer) Show(ctx context.Context, state string) (Connect, error) {
	c, err := a.connect(ctx, state)
	if err == nil && c.Link.Status != LinkOpen {
		err = problem.Of(problem.CodeLinkExpired)
	}
	return c, err
}

func (a *Authorizer) connect(ctx context.Context, state string) (Connect, error) {
	if !statePattern.MatchString(state) {
		return Connect{}, problem.Of(problem.CodeLinkUnknown)
	}
	due, err := a.DB.Due(ctx, postgres.LinkByState, 1, sum(state))
	if err != nil {
		return Connect{}, storage(err)
	}
	if len(due) == 0 {
		return Connect{}, problem.Of(problem.CodeLinkUnknown)
	}
	t, err := a.Tenants.Tenant(ctx, due[0].Tenant)
	if err != nil {
		return Connect{}, storage(err)
	}
	link, err := a.GetLink(ctx, due[0].Tenant, due[0].ID)
	if err == nil && t.Status != tenant.Active {
		err = problem.Of(problem.CodeLinkExpired)
	}
	return Connect{link, t.Name}, err
}

// clicksAnHour bounds what a stranger who has the link can make us call.
const clicksAnHour = 30

// Click is the button: it fetches a pre_auth_code for this browser and returns
// the URL of WeChat's consent page, the one for phones if mobile. Errors: of
// Show, rate_limited, and those of Problem.
func (a *Authorizer) Click(ctx context.Context, state, browser string, mobile bool) (string, error) {
	c, err := a.Show(ctx, state)
	if err != nil {
		return "", err
	}
	link := c.Link
	var n int64
	err = a.DB.InTenant(ctx, link.TenantID, func(tx postgres.DBTX) (err error) {
		n, err = a.q.ClickCount(ctx, tx, dbsqlc.ClickCountParams{TenantID: link.TenantID, LinkID: link.ID})
		return err
	})
	if err != nil {
		return "", storage(err)
	}
	if n >= clicksAnHour {
		p := problem.Of(problem.CodeRateLimited)
		p.RetryAfter = time.Hour
		return "", p
	}
	creds, err := a.Tenants.Credentials(ctx, link.TenantID)
	if err != nil {
		return "", notSet(err)
	}
	reply, err := ask[wechat.CreatePreAuthCodeReply](ctx, a, link.TenantID, wechat.CreatePreAuthCode, nil, func(creds tenant.Credentials) any {
		return wechat.ComponentRef{ComponentAppID: creds.AppID}
	})
	if err != nil {
		return "", Problem(err)
	}
	// Before the browser goes there: the push may be faster than it.
	err = a.DB.InTenant(ctx, link.TenantID, func(tx postgres.DBTX) error {
		return a.q.ClickInsert(ctx, tx, dbsqlc.ClickInsertParams{
			TenantID: link.TenantID, PreAuthCodeSha256: sum(reply.PreAuthCode), LinkID: link.ID, BrowserSha256: sum(browser),
		})
	})
	if err != nil {
		return "", storage(err)
	}
	return a.consentURL(link, state, creds.AppID, reply.PreAuthCode, mobile), nil
}

// consentURL is WeChat's page in the documented order of parameters
// (platform.md §4.2).
func (a *Authorizer) consentURL(link Link, state, component, preAuthCode string, mobile bool) string {
	authType := map[string]string{OfficialAccount: "1", MiniProgram: "2", AnyAccount: "3"}[link.AccountType]
	params := []string{
		"component_appid", component,
		"pre_auth_code", preAuthCode,
		"redirect_uri", a.Config.PublicURL + "/connect/" + state + "/callback",
		"auth_type", authType,
	}
	base, fragment := a.Config.MPURL+"/cgi-bin/componentloginpage", ""
	if mobile {
		base, fragment = a.Config.OpenURL+"/wxaopen/safe/bindcomponent", "#wechat_redirect"
		params = append([]string{"action", "bindcomponent", "no_scan", "1"}, params...)
	}
	if link.ExpectedAppID != nil {
		params = append(params, "biz_appid", *link.ExpectedAppID)
	}
	var b strings.Builder
	b.WriteString(base)
	for i := 0; i < len(params); i += 2 {
		b.WriteByte("?&"[min(i, 1)])
		b.WriteString(params[i] + "=" + url.QueryEscape(params[i+1]))
	}
	return b.String() + fragment
}

// A Callback is how an authorisation ended for the browser that came back.
type Callback struct {
	Connect
	Status     string    // "authorized", or "pending": WeChat's push will decide
	MerchantID uuid.UUID // of an authorized one
	ReturnTo   string    // the link's return URL with status and merchant_id added; empty: show our own page
}

// authCodePattern is generous: no document says of what a code is made.
var authCodePattern = regexp.MustCompile(`^[A-Za-z0-9@_.+/=~-]{4,1000}$`)

// pushWait is how long a browser without our cookie waits for the push that
// alone may bind then.
const pushWait = 5 * time.Second

// Callback is where WeChat sends the browser with the code. The code is never
// logged nor kept, only its hash. Errors: link_unknown, link_expired,
// invalid_parameter (the code), authorization_code_expired,
// merchant_bound_to_other_tenant, unexpected_account, and those of Problem.
func (a *Authorizer) Callback(ctx context.Context, state, authCode, browser string) (Callback, error) {
	c, err := a.connect(ctx, state)
	if err != nil {
		return Callback{}, err
	}
	if c.Link.Status == LinkExpired {
		return Callback{}, problem.Of(problem.CodeLinkExpired)
	}
	if !authCodePattern.MatchString(authCode) {
		return Callback{}, problem.Of(problem.CodeInvalidParameter).WithFields(problem.Field{Pointer: "auth_code", Code: "pattern", Detail: "the code that WeChat gave"})
	}
	link := c.Link
	v := arrival{code: secret.NewText(authCode), hash: sum(authCode), link: &link.ID}
	if link.Status == LinkAuthorized { // the push was faster, a page is loaded again, or a second code
		code, err := a.boundCode(ctx, link.TenantID, v)
		if err != nil {
			return Callback{}, err
		}
		if code.LinkID == nil || *code.LinkID != link.ID {
			return Callback{}, problem.Of(problem.CodeLinkExpired)
		}
		return a.came(c, code), nil
	}
	mine := false
	if browser != "" {
		err = a.DB.InTenant(ctx, link.TenantID, func(tx postgres.DBTX) (err error) {
			mine, err = a.q.ClickedHere(ctx, tx, dbsqlc.ClickedHereParams{TenantID: link.TenantID, LinkID: link.ID, BrowserSha256: sum(browser)})
			return err
		})
		if err != nil {
			return Callback{}, storage(err)
		}
	}
	if !mine {
		return a.awaitPush(ctx, c, v)
	}
	code, err := a.exchange(ctx, link.TenantID, v)
	if errors.Is(err, errStillExchanging) {
		return Callback{Connect: c, Status: "pending", ReturnTo: returnTo(link, "pending", "")}, nil
	}
	if err != nil {
		return Callback{}, storage(err)
	}
	if code.LinkID == nil { // the push was faster, and didn't know the link
		if code, err = a.bindLink(ctx, link.TenantID, v); err != nil {
			return Callback{}, err
		}
	}
	if code.LinkID == nil || *code.LinkID != link.ID {
		return Callback{}, a.notThisLink(ctx, link)
	}
	return a.came(c, code), nil
}

// notThisLink says why an exchanged code did not use the link up.
func (a *Authorizer) notThisLink(ctx context.Context, link Link) error {
	now, err := a.GetLink(ctx, link.TenantID, link.ID)
	switch {
	case err != nil:
		return err
	case now.Status != LinkOpen:
		return problem.Of(problem.CodeLinkExpired)
	}
	return problem.Of(problem.CodeUnexpectedAccount)
}

// boundCode reads a code that was exchanged and whose merchant is written,
// though it may not be described yet; of another one it shows nothing.
func (a *Authorizer) boundCode(ctx context.Context, tenantID uuid.UUID, v arrival) (dbsqlc.AuthorizationCode, error) {
	var rows []dbsqlc.AuthorizationCode
	b := a.DB.NewBatch(tenantID)
	postgres.QueueMany(b, dbsqlc.CodeRead, dbsqlc.CodeReadParams{TenantID: tenantID, CodeSha256: v.hash}, &rows)
	if err := a.DB.Run(ctx, b); err != nil {
		return dbsqlc.AuthorizationCode{}, storage(err)
	}
	if len(rows) == 0 || rows[0].MerchantID == nil || rows[0].State == "failed" {
		return dbsqlc.AuthorizationCode{}, nil
	}
	return rows[0], nil
}

// awaitPush gives the push a moment: in a browser that isn't the one which
// pressed the button nothing is exchanged.
func (a *Authorizer) awaitPush(ctx context.Context, c Connect, v arrival) (Callback, error) {
	deadline := time.Now().Add(pushWait)
	for wait := pollFirst; ; wait = min(2*wait, pollMost) {
		code, err := a.boundCode(ctx, c.Link.TenantID, v)
		if err != nil {
			return Callback{}, err
		}
		if code.LinkID != nil && *code.LinkID == c.Link.ID {
			return a.came(c, code), nil
		}
		if code.MerchantID != nil || time.Now().After(deadline) {
			return Callback{Connect: c, Status: "pending", ReturnTo: returnTo(c.Link, "pending", "")}, nil
		}
		select {
		case <-ctx.Done():
			return Callback{}, ctx.Err()
		case <-time.After(wait):
		}
	}
}

func (a *Authorizer) came(c Connect, code dbsqlc.AuthorizationCode) Callback {
	return Callback{
		Connect: c, Status: LinkAuthorized, MerchantID: *code.MerchantID,
		ReturnTo: returnTo(c.Link, LinkAuthorized, typeid.Format(typeid.Merchant, *code.MerchantID)),
	}
}

// returnTo adds the outcome to the link's return URL, which was checked when
// the link was made; nothing of the request goes into it.
func returnTo(link Link, status, merchant string) string {
	if link.ReturnURL == nil {
		return ""
	}
	u, err := url.Parse(*link.ReturnURL)
	if err != nil {
		return ""
	}
	add := "status=" + status
	if merchant != "" {
		add += "&merchant_id=" + merchant
	}
	if u.RawQuery != "" {
		add = u.RawQuery + "&" + add
	}
	u.RawQuery = add
	return u.String()
}
