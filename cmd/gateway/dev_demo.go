package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/config"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/typeid"
)

// demoTenant is the name by which a later start finds the demo again.
const demoTenant = "Mendian Demo"

// demoAccounts are the simulator's accounts that become the demo's merchants.
var demoAccounts = []struct{ appid, what string }{
	{sandbox.DemoOfficialAccount, "Official Account: stores"},
	{sandbox.DemoMiniProgram, "Mini Program: live goods"},
	{sandbox.NoStoreSetsAccount, "Official Account without the store sets"},
	{sandbox.LeavingAccount, "Official Account that withdrew its authorisation"},
	{sandbox.MigratingAccount, "Official Account whose stores wait for migration"},
}

// A demo makes the tenant that `gateway dev` shows, through the same doors as
// everybody: links, consent pages, pushes, the REST API.
type demo struct {
	g       *gateway
	cfg     config.Config
	own     string
	tenant  tenant.Details
	token   secret.Text
	shops   authorizer.Merchant // the one whose stores the first call is for
	timeout time.Duration
}

// welcome makes what is missing of the demo, writes .env.dev, and says what
// there is.
func (d *devCommand) welcome(ctx context.Context, g *gateway, cfg config.Config, own, database, logPlace string, start time.Time) error {
	m := &demo{g: g, cfg: cfg, own: own, timeout: 20 * time.Second}
	for _, step := range []func(context.Context) error{m.findOrMakeTenant, m.connectSimulator, m.firstTicket, m.authorise, m.findOrMakeKey, m.firstStore} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	place, err := m.writeEnv()
	if err != nil {
		return err
	}
	d.box(m, database, logPlace, place, time.Since(start))
	return nil
}

func (m *demo) findOrMakeTenant(ctx context.Context) error {
	list, _, err := m.g.tenants.List(ctx, tenant.Filter{}, tenant.Page{Limit: 100})
	if err != nil {
		return err
	}
	for _, t := range list {
		if t.ComponentAppID == sandbox.DefaultComponentAppID {
			m.tenant = t
			return nil
		}
	}
	m.tenant, err = m.g.tenants.Create(ctx, operator, tenant.NewTenant{Name: demoTenant, ComponentAppID: sandbox.DefaultComponentAppID,
		Credentials: &tenant.NewCredentials{Secret: secret.NewText(sandbox.DefaultComponentSecret),
			MessageToken: secret.NewText(sandbox.DefaultMessageToken), EncodingAESKey: secret.NewText(sandbox.DefaultEncodingAESKey)}})
	return err
}

// connectSimulator tells the simulator where to push, each time: the port may
// have changed.
func (m *demo) connectSimulator(ctx context.Context) error {
	return m.control(ctx, "component", map[string]string{
		"appid": sandbox.DefaultComponentAppID, "secret": sandbox.DefaultComponentSecret, "message_token": sandbox.DefaultMessageToken,
		"encoding_aes_key": sandbox.DefaultEncodingAESKey, "push_url": m.cfg.PublicURL + "/wechat/" + m.tenant.Ref})
}

// firstTicket waits for what every click on a link needs.
func (m *demo) firstTicket(ctx context.Context) error {
	return m.until(ctx, "the simulator's first ticket", func() error {
		h, err := m.g.ledger.Health(ctx, m.tenant.ID)
		if err == nil && h.Tickets == 0 {
			err = errors.New("none yet")
		}
		return err
	})
}

// authorise lets each account go through our link as its administrator would
// in a browser, unless it did at an earlier start.
func (m *demo) authorise(ctx context.Context) error {
	who := tenant.CLI(m.tenant.ID)
	for _, account := range demoAccounts {
		appid := account.appid
		_, err := m.g.auth.Merchant(ctx, m.tenant.ID, appid)
		if err == nil {
			continue
		}
		if !problem.HasCode(err, problem.CodeMerchantNotFound) {
			return err
		}
		err = m.until(ctx, "a merchant to authorise", func() error {
			_, url, err := m.g.auth.CreateLink(ctx, who, authorizer.NewLink{})
			if err != nil {
				return err
			}
			if err := m.control(ctx, "authorizations", map[string]string{"appid": appid, "url": url}); err != nil {
				return err
			}
			_, err = m.g.auth.Merchant(ctx, m.tenant.ID, appid)
			return err
		})
		if err != nil {
			return err
		}
		if appid == sandbox.LeavingAccount {
			if err := m.control(ctx, "accounts/"+appid+"/unauthorize", struct{}{}); err != nil {
				return err
			}
			err := m.until(ctx, "a merchant to withdraw its authorisation", func() error {
				left, err := m.g.auth.Merchant(ctx, m.tenant.ID, appid)
				if err == nil && left.Status != "deauthorized" {
					err = errors.New("still authorised")
				}
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	if err := m.compared(ctx, sandbox.DemoMiniProgram, "goods"); err != nil {
		return err
	}
	if err := m.compared(ctx, sandbox.DemoOfficialAccount, "store"); err != nil {
		return err
	}
	var err error
	m.shops, err = m.g.auth.Merchant(ctx, m.tenant.ID, sandbox.DemoOfficialAccount)
	return err
}

// compared waits until what the account has of a type at WeChat is known.
func (m *demo) compared(ctx context.Context, appid, typ string) error {
	return m.until(ctx, "the first comparison of "+typ, func() error {
		fresh, err := m.g.auth.Merchant(ctx, m.tenant.ID, appid)
		if err == nil && fresh.SyncedAt(typ) == nil {
			err = errors.New("not yet")
		}
		return err
	})
}

// findOrMakeKey reuses the key of an earlier start as long as it is good.
func (m *demo) findOrMakeKey(ctx context.Context) error {
	path := filepath.Join(m.own, "demo-key")
	if b, err := os.ReadFile(path); err == nil {
		if who, err := m.g.keys.Authenticate(ctx, string(b), false); err == nil && who.TenantID == m.tenant.ID && time.Until(time.Unix(who.ExpiresAt, 0)) > 24*time.Hour {
			m.token = secret.NewText(string(b))
			return nil
		}
	}
	_, token, err := m.g.keys.Issue(ctx, tenant.CLI(m.tenant.ID), tenant.NewKey{Name: "demo", Scopes: []string{"*"}, ExpiresAt: time.Now().Add(90 * 24 * time.Hour)})
	if err != nil {
		return err
	}
	m.token = token
	return os.WriteFile(path, []byte(token.Reveal()), 0o600)
}

// firstStore creates one store over REST, so that there is an audit to look
// at. The key makes it one store over all starts.
func (m *demo) firstStore(ctx context.Context) error {
	var places struct {
		Data []struct {
			MapPoiID string `json:"map_poi_id"`
		} `json:"data"`
	}
	if err := m.rest(ctx, http.MethodGet, "/v1/map-pois?district_id=440105&keyword=a", nil, &places); err != nil {
		return err
	}
	if len(places.Data) == 0 {
		return nil
	}
	return m.rest(ctx, http.MethodPost, "/v1/stores", map[string]any{
		"map_poi_id": places.Data[0].MapPoiID, "photos": []string{documentsPhoto}, "contact_phone": "020-12345678",
		"business_hours": map[string]string{"open": "09:00", "close": "18:00"}, "credential_number": "91440101DEMO0009", "client_reference": "demo-1",
	}, nil)
}

// documentsPhoto is the picture in the examples of document 000 §4.8.
const documentsPhoto = "http://mmbiz.qpic.cn/mmbiz_jpg/tW66AWvE2K4EJxIYOVpiaGOkfg0iayibiaP2xHOChvbmKQD5uh8ymibbEKlTTPmjTdQ8ia43sULLeG1pT2psOfPic4kTw/0?wx_fmt=jpeg"

func (m *demo) rest(ctx context.Context, method, path string, body, into any) error {
	req, err := m.request(ctx, method, m.cfg.PublicURL+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+m.token.Reveal())
	req.Header.Set("Merchant-Id", typeid.Format(typeid.Merchant, m.shops.ID))
	if method == http.MethodPost {
		req.Header.Set("Idempotency-Key", "gateway-dev-first-store")
	}
	return answer(req, into)
}

// control calls the simulator's control API.
func (m *demo) control(ctx context.Context, path string, body any) error {
	req, err := m.request(ctx, http.MethodPost, m.cfg.WeChatAPIURL+"/_sandbox/"+path, body)
	if err != nil {
		return err
	}
	return answer(req, nil)
}

func (m *demo) request(ctx context.Context, method, url string, body any) (*http.Request, error) {
	var reader io.Reader
	if body != nil {
		js, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		reader = bytes.NewReader(js)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, reader)
	if err == nil && body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, err
}

// localClient talks to this process's own two servers.
var localClient = &http.Client{Timeout: 30 * time.Second}

func answer(req *http.Request, into any) error {
	resp, err := localClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s %s: HTTP %d: %s", req.Method, req.URL.Path, resp.StatusCode, bytes.TrimSpace(b))
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(b, into)
}

// until tries again and again, for what arrives by a push.
func (m *demo) until(ctx context.Context, what string, try func() error) error {
	deadline := time.Now().Add(m.timeout)
	for {
		err := try()
		if err == nil || ctx.Err() != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %s for %s: %w", m.timeout, what, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// writeEnv writes .env.dev into the working directory, or beside the data
// where that can't be written, and returns where.
func (m *demo) writeEnv() (string, error) {
	keyset, err := filepath.Abs(m.cfg.KeysetFile)
	if err != nil {
		return "", err
	}
	spool, err := filepath.Abs(m.cfg.SpoolDir)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, v := range [][2]string{
		{"GATEWAY_PUBLIC_URL", m.cfg.PublicURL}, {"GATEWAY_WECHAT_API_URL", m.cfg.WeChatAPIURL}, {"GATEWAY_KEYSET_FILE", keyset}, {"GATEWAY_SPOOL_DIR", spool},
		{"GATEWAY_URL", m.cfg.PublicURL}, {"GATEWAY_API_KEY", m.token.Reveal()}, {"GATEWAY_SANDBOX_URL", m.cfg.WeChatAPIURL},
		{"DATABASE_URL", m.cfg.DatabaseURL.Reveal()}, {"SANDBOX_COMPONENT_APPID", sandbox.DefaultComponentAppID},
		{"SANDBOX_COMPONENT_SECRET", sandbox.DefaultComponentSecret}, {"SANDBOX_MESSAGE_TOKEN", sandbox.DefaultMessageToken},
		{"SANDBOX_ENCODING_AES_KEY", sandbox.DefaultEncodingAESKey},
	} {
		fmt.Fprintf(&b, "%s=%s\n", v[0], quote(v[1]))
	}
	var errs []error
	for _, dir := range []string{".", m.own} {
		path := filepath.Join(dir, ".env.dev")
		tmp := path + ".new"
		err := os.WriteFile(tmp, []byte(b.String()), 0o600)
		if err == nil {
			err = os.Rename(tmp, path)
		}
		if err == nil {
			return path, nil
		}
		errs = append(errs, err)
	}
	return "", errors.Join(errs...)
}

func (d *devCommand) box(m *demo, database, logPlace, env string, took time.Duration) {
	kept := m.own + " (remove it with: gateway dev reset)"
	if d.ephemeral {
		kept = "nowhere: --ephemeral"
	}
	line := strings.Repeat("─", 100)
	fmt.Fprintf(d.out, `
%[1]s
  Mendian is ready (%[2]s). Everything about WeChat is simulated.

  REST API       %[3]s/v1
  Swagger UI     %[3]s/docs/
  WeChat         %[4]s/          a page of the simulator: audits, pushes, the clock
  Metrics        http://%[5]s/metrics
  Database       %[6]s
  Data is kept   %[7]s
  Log            %[8]s
  Settings       %[9]s   (shell syntax:  set -a; . %[9]s; set +a)

  Demo key       %[10]s

  Merchants
`, line, took.Round(10*time.Millisecond), m.cfg.PublicURL, m.cfg.WeChatAPIURL, reachableText(d.adminAddr), database, kept, logPlace, env, m.token.Reveal())
	for _, account := range demoAccounts {
		if am, err := m.g.auth.Merchant(context.Background(), m.tenant.ID, account.appid); err == nil {
			fmt.Fprintf(d.out, "    %s  %s  %v  %s\n", typeid.Format(typeid.Merchant, am.ID), am.AppID, am.PermissionSets, account.what)
		}
	}
	fmt.Fprintf(d.out, `
  Create a store; WeChat's audit approves it after %[1]s:

curl -s %[2]s/v1/stores \
  -H 'Authorization: Bearer %[3]s' \
  -H 'Merchant-Id: %[4]s' \
  -H 'Idempotency-Key: my-first-store' \
  -H 'Content-Type: application/json' \
  -d '{"map_poi_id":"5938314494307741153","photos":["%[5]s"],"contact_phone":"1111222222","business_hours":{"open":"10:00","close":"21:00"},"credential_number":"22883878-1"}'

  Stop with Ctrl-C.
%[6]s
`, d.auditDelay, m.cfg.PublicURL, m.token.Reveal(), typeid.Format(typeid.Merchant, m.shops.ID), documentsPhoto, line)
}

// holdDirectory keeps a second `gateway dev`, and reset, out of a directory.
func holdDirectory(dir string) (release func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "running"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("another `gateway dev` uses %s; choose another place with --data DIR, or --ephemeral", dir)
	}
	return func() { _ = f.Close() }, nil
}
