package isolation

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"sync"
	"testing"
)

// platforms is WeChat's API as two platforms meet it: one address. A simulator
// serves one platform, so there is one for each behind it, and a call goes to
// the one whose platform it names or whose token it carries.
type platforms struct {
	t   testing.TB
	URL string

	mu      sync.Mutex
	serves  map[string]http.Handler // by component_appid
	tokenOf map[string]string       // component_appid by access token
}

func newPlatforms(t testing.TB) *platforms {
	t.Helper()
	p := &platforms{t: t, serves: map[string]http.Handler{}, tokenOf: map[string]string{}}
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	p.URL = server.URL
	return p
}

// add puts the platform of a simulator behind the address.
func (p *platforms) add(componentAppID, simulator string) {
	p.t.Helper()
	to, err := url.Parse(simulator)
	if err != nil {
		p.t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // the gateway hangs up on what takes too long
	proxy.ModifyResponse = func(res *http.Response) error {
		body, err := io.ReadAll(res.Body)
		if err != nil {
			return err
		}
		res.Body = io.NopCloser(bytes.NewReader(body))
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, token := range issuedToken.FindAllSubmatch(body, -1) {
			p.tokenOf[string(token[1])] = componentAppID
		}
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.serves[componentAppID] = proxy
}

var issuedToken = regexp.MustCompile(`"(?:component|authorizer)_access_token":\s*"([^"]+)"`)

func (p *platforms) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the gateway hung up
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	q := r.URL.Query()
	p.mu.Lock()
	appid := p.tokenOf[q.Get("access_token")+q.Get("component_access_token")]
	if appid == "" {
		var named struct {
			ComponentAppID string `json:"component_appid"`
		}
		if json.Unmarshal(body, &named) == nil {
			appid = named.ComponentAppID
		}
	}
	to := p.serves[appid]
	p.mu.Unlock()
	if to == nil {
		p.t.Errorf("%s reached WeChat with a token that no platform was given", r.URL.Path)
		http.Error(w, "whose?", http.StatusBadGateway)
		return
	}
	to.ServeHTTP(w, r)
}
