package e2e

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/test/world"
)

// documented are the metrics of docs/reference/metrics.md with their labels.
func documented(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/reference/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	quoted := regexp.MustCompile("`([a-z_]+)`")
	for _, row := range regexp.MustCompile("(?m)^\\| `(mendian_[a-z_]+)` \\|([^|]*)\\|").FindAllStringSubmatch(string(text), -1) {
		out[row[1]] = []string{}
		for _, label := range quoted.FindAllStringSubmatch(row[2], -1) {
			out[row[1]] = append(out[row[1]], label[1])
		}
		slices.Sort(out[row[1]])
	}
	if len(out) < 5 {
		t.Fatalf("only %d metrics are documented", len(out))
	}
	return out
}

var sample = regexp.MustCompile(`(?m)^(mendian_[a-z_]+)(?:\{([^}]*)\})? (\S+)$`)

// scrape reads a gateway's own metrics: the sum of each, and its labels. Of a
// histogram it is the number of observations.
func scrape(t *testing.T, g *world.Gateway) (sums map[string]float64, labels map[string][]string) {
	t.Helper()
	resp, err := http.Get(g.AdminURL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%d %v", resp.StatusCode, err)
	}
	sums, labels = map[string]float64{}, map[string][]string{}
	for _, m := range sample.FindAllStringSubmatch(string(body), -1) {
		name, counted := strings.CutSuffix(m[1], "_count")
		if !counted && (strings.HasSuffix(name, "_bucket") || strings.HasSuffix(name, "_sum")) {
			continue
		}
		v, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			t.Fatal(err)
		}
		sums[name] += v
		labels[name] = []string{}
		for _, l := range regexp.MustCompile(`([a-z_]+)="`).FindAllStringSubmatch(m[2], -1) {
			labels[name] = append(labels[name], l[1])
		}
		slices.Sort(labels[name])
	}
	return sums, labels
}

// Every documented metric has counted something after the main job and a few
// refusals, with the labels of its page; and there is none besides.
func TestMetrics(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	g := w.Start(nil)
	c := w.Demo(g)
	created := c.Do("POST", "/v1/stores", w.NewStore(1)).Want(202)
	c.Until("/v1/stores/"+created.Get("id"), "active")
	c.Do("POST", "/v1/merchants/"+sandbox.DemoOfficialAccount+"/token-refreshes", nil).Want(200)
	c.As("nonsense").Do("GET", "/v1/me", nil).WantProblem(401, "token_invalid")
	if resp, err := http.Post(g.URL+"/wechat/"+w.Tenant.Ref+"/component?msg_signature=0&timestamp=1&nonce=1&encrypt_type=aes", "text/xml", strings.NewReader("<xml></xml>")); err != nil || resp.StatusCode != 403 {
		t.Errorf("a push without a signature: %v %v", resp, err)
	}

	w.Fault(listPath, 1000, map[string]any{"drop_reply": true})
	w.Eventually("calls are paused", func() error {
		if a := c.Do("GET", liveStores, nil); a.Code() != "upstream_circuit_open" {
			return fmt.Errorf("%d %s", a.Status, a.Body)
		}
		return nil
	})

	want := documented(t)
	names := slices.Sorted(maps.Keys(want))
	w.Eventually("every metric counts", func() error {
		sums, _ := scrape(t, g)
		for _, name := range names {
			// The age of a ticket that has just come is 0.
			if v, ok := sums[name]; v <= 0 && (!ok || name != "mendian_ticket_age_seconds") {
				return fmt.Errorf("%s is %v", name, sums[name])
			}
		}
		return nil
	})
	_, labels := scrape(t, g)
	if diff := cmp.Diff(want, labels); diff != "" {
		t.Errorf("metrics and their labels (-documented +served): %s", diff)
	}

	for _, path := range []string{"/metrics", "/debug/pprof/", "/debug/pprof/heap"} {
		if resp, err := http.Get(g.URL + path); err != nil || resp.StatusCode != 404 {
			t.Errorf("%s on the public address: %v %v", path, resp, err)
		}
		if resp, err := http.Get(g.AdminURL + path); err != nil || resp.StatusCode != 200 {
			t.Errorf("%s on the admin address: %v %v", path, resp, err)
		}
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		for _, base := range []string{g.URL, g.AdminURL} {
			if resp, err := http.Get(base + path); err != nil || resp.StatusCode != 200 {
				t.Errorf("%s%s: %v %v", base, path, resp, err)
			}
		}
	}
}
