package torture

import (
	"crypto/rand"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat/msgcrypt"
)

// pushFigures are what a storm of pushes amounts to.
type pushFigures struct {
	Pushes, Sent, Missed, Twice int
	Most                        int // of the same second
	P99, Slowest                time.Duration
	Outage                      int // pushed while Postgres was away, once each, and answered 500
}

func (f pushFigures) String() string {
	return fmt.Sprintf("pushes %d sent %d times, up to %d of one second, missed %d, applied twice %d, answered in %s (p99), %s at most (%d more came once while Postgres was away)",
		f.Pushes, f.Sent, f.Most, f.Missed, f.Twice, f.P99.Round(time.Millisecond/10), f.Slowest.Round(time.Millisecond/10), f.Outage)
}

// perSecond is how many pushes say that they were made in the same second.
const perSecond = 50

// WeChat decides audits and authorisations come and go, many in the same
// second; each push comes one to four times, in any order, at any process. Each
// counts once, and none waits.
func TestPushes(t *testing.T) {
	// The polls that ask how audits stand come as late as in production: what
	// is known is known by the pushes.
	figures(t, arenaOf{env: map[string]string{"GATEWAY_FAULT_SCHEDULE": ""}}, func(a *Arena, r *mathrand.Rand) fmt.Stringer {
		s := newPushStorm(a)
		f := pushFigures{Most: perSecond}
		list := s.decide(*pushes, r)
		later := list[:min(len(list)/10, 100)]
		list = append(list[len(later):], s.flip(r)...)
		f.Pushes, f.Outage = len(list), len(later)

		var sends []pushed
		for _, p := range list {
			for range 1 + r.IntN(4) {
				sends = append(sends, p)
			}
		}
		r.Shuffle(len(sends), func(i, j int) { sends[i], sends[j] = sends[j], sends[i] })
		f.Sent = len(sends)
		took := s.send(sends, r, http.StatusOK, "success")
		f.P99, f.Slowest = took[len(took)*99/100], took[len(took)-1]
		// In a short form the machine is busy with all other tests.
		long := *pushes >= 1000
		if f.P99 >= 300*time.Millisecond && long || f.Slowest >= 5*time.Second {
			t.Errorf("answered in %s (p99), %s at most", f.P99, f.Slowest)
		}

		died := a.Slots[r.IntN(len(a.Slots))]
		if long { // what it was applying takes a minute to be taken over
			died.Kill()
			died.Up(nil)
		}
		s.applied(len(list), &f)

		// Some come once more, late. What verifies a push is remembered for a
		// minute from then on, without a database.
		s.send(sends[:60], r, http.StatusOK, "success")

		// Postgres is away: WeChat is told that these weren't kept, and never
		// pushes them again. What was told is not lost all the same.
		a.Cluster.Kill()
		s.send(later, r, http.StatusInternalServerError, "")
		died.Kill()
		a.Cluster.Start()
		died.Up(nil)

		s.applied(len(list)+len(later), &f)
		s.decided(&f)
		s.stands()
		return f
	})
}

// A pushed is one push of the simulator's.
type pushed struct {
	ID     int64
	AppID  string
	Name   string
	XML    string
	Status string
}

// A pushStorm takes the place of WeChat as the one who pushes.
type pushStorm struct {
	*Arena
	key    msgcrypt.Key
	over   *http.Client
	shops  []*merchant // of stores and places
	old    []*merchant // of stores of Store Management
	guests []*merchant // that come and go
	urls   []string
}

func newPushStorm(a *Arena) *pushStorm {
	a.t.Helper()
	key, err := msgcrypt.ParseKey(a.Component.EncodingAESKey)
	if err != nil {
		a.t.Fatal(err)
	}
	s := &pushStorm{Arena: a, key: key,
		over: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}, Timeout: time.Minute}}
	for range 6 {
		s.shops = append(s.shops, a.newMerchant(map[string]any{"store_program": "approved", "daily_limits": map[string]int{"/wxa/add_store": 1_000_000}}))
	}
	for range 2 {
		s.old = append(s.old, a.newMerchant(nil))
	}
	for range 6 {
		s.guests = append(s.guests, a.newMerchant(nil))
	}
	all := slices.Concat(s.shops, s.old, s.guests)
	for _, m := range all {
		m.authorize()
	}
	for _, m := range all {
		m.wait()
	}
	s.urls = a.up()
	return s
}

// decide makes n writes that WeChat audits, lets it decide them, and returns
// what it would push, fifty in each second.
func (s *pushStorm) decide(n int, r *mathrand.Rand) []pushed {
	s.t.Helper()
	s.Hold(true)
	var writes []*Write
	for i := range n {
		w := &Write{Key: s.name("torture-")}
		shop := s.shops[i%len(s.shops)]
		switch i % 5 {
		case 0:
			shop.createPlace(w)
		case 1:
			s.old[i/5%len(s.old)].createLegacy(w)
		default:
			shop.createStore(w)
		}
		writes = append(writes, w)
	}
	sideBySide(24, writes, r, func(w *Write, own *mathrand.Rand) { s.drive(w, s.urls, own) })
	for i, audit := range s.Audits() {
		if audit["status"] != "pending" {
			continue
		}
		decision, reason := "approve", ""
		if r.IntN(3) == 0 {
			decision, reason = "reject", fmt.Sprintf("too dark %d", i)
		}
		s.Decide(fmt.Sprint(audit["kind"]), number(audit["id"]), decision, reason)
	}
	list := s.held(func(p pushed) bool { return p.AppID != "" })
	if len(list) != n {
		s.t.Fatalf("%d pushes of %d decisions", len(list), n)
	}
	r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	second := regexp.MustCompile(`<CreateTime>\d+</CreateTime>`)
	for i := range list {
		list[i].XML = second.ReplaceAllString(list[i].XML, fmt.Sprintf("<CreateTime>%d</CreateTime>", time.Now().Unix()+int64(i/perSecond)))
	}
	return list
}

// held are the pushes that the simulator keeps back.
func (s *pushStorm) held(which func(pushed) bool) []pushed {
	s.t.Helper()
	var all struct{ Pushes []pushed }
	s.Control("GET", "pushes", nil, &all)
	return slices.DeleteFunc(all.Pushes, func(p pushed) bool { return p.Status != "queued" || !which(p) })
}

// flip lets guests withdraw their authorisation and give it again, within a
// second and over several, and returns what WeChat would push of it.
func (s *pushStorm) flip(r *mathrand.Rand) []pushed {
	s.t.Helper()
	there := map[*merchant]bool{}
	for range 2 {
		for _, m := range s.guests {
			for range 1 + r.IntN(3) {
				if there[m] = !there[m]; there[m] {
					s.Control("POST", "accounts/"+m.appid+"/unauthorize", nil, nil)
				} else {
					m.authorize()
				}
			}
		}
		time.Sleep(1100 * time.Millisecond)
	}
	// Two withdrawals of one account in the same second are one and the same push.
	seen := map[string]bool{}
	return s.held(func(p pushed) bool {
		known := seen[p.XML]
		seen[p.XML] = true
		return !known && (p.Name == "authorized" || p.Name == "unauthorized")
	})
}

// sendsPerSecond is the pace of the pushes, whatever becomes of those before.
const sendsPerSecond = 200

// send pushes these and returns how long the answers took, sorted. Each should
// be this one.
func (s *pushStorm) send(list []pushed, r *mathrand.Rand, status int, body string) []time.Duration {
	s.t.Helper()
	took := make([]time.Duration, len(list))
	var wait sync.WaitGroup
	pace := time.NewTicker(time.Second / sendsPerSecond)
	defer pace.Stop()
	for i, p := range list {
		<-pace.C
		url := s.urls[r.IntN(len(s.urls))]
		wait.Go(func() {
			begun := time.Now()
			gotStatus, gotBody := s.push(url, p)
			took[i] = time.Since(begun)
			if gotStatus != status || gotBody != body {
				s.t.Errorf("%s at %s: %d %q", p.Name, url, gotStatus, gotBody)
			}
		})
	}
	wait.Wait()
	slices.Sort(took)
	return took
}

// push makes one attempt as WeChat does: its own nonce, time and random bytes
// around the same text (platform.md §7).
func (s *pushStorm) push(at string, p pushed) (status int, body string) {
	stamp, nonce := fmt.Sprint(time.Now().Unix()), rand.Text()
	encrypt := s.key.Encrypt([16]byte([]byte(rand.Text())), []byte(p.XML), s.Component.AppID)
	q := url.Values{"timestamp": {stamp}, "nonce": {nonce}, "encrypt_type": {"aes"},
		"signature":     {msgcrypt.Signature(s.Component.MessageToken, stamp, nonce, "")},
		"msg_signature": {msgcrypt.Signature(s.Component.MessageToken, stamp, nonce, encrypt)}}
	path, to := "/component", "<AppId>"+msgcrypt.CDATA(s.Component.AppID)+"</AppId>"
	if p.AppID != "" {
		path, to = "/messages/"+p.AppID, "<ToUserName>"+msgcrypt.CDATA("gh_"+p.AppID[2+4:])+"</ToUserName>"
	}
	resp, err := s.over.Post(at+"/wechat/"+s.Tenant.Ref+path+"?"+q.Encode(), "text/xml", strings.NewReader("<xml>"+to+"<Encrypt>"+msgcrypt.CDATA(encrypt)+"</Encrypt></xml>"))
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}

// applied waits until n pushes are kept, and all of them have had their effect.
func (s *pushStorm) applied(n int, f *pushFigures) {
	s.t.Helper()
	deadline := time.Now().Add(quiet)
	for {
		kept, open := 0, 0
		states := s.Query(`SELECT state, count(*) AS n FROM event_inbox WHERE event <> ALL ($1) AND received_at > (SELECT min(created_at) FROM operations) GROUP BY state`,
			[]string{"component_verify_ticket", "updateauthorized"})
		for _, row := range states {
			kept += int(row["n"].(int64))
			if row["state"] != "applied" {
				open += int(row["n"].(int64))
			}
		}
		if kept == n && open == 0 {
			return
		}
		if f.Missed = n - kept + open; time.Now().After(deadline) {
			s.t.Errorf("%d of %d pushes kept: %v", kept, n, states)
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// decided compares every audit with WeChat's decision, and counts what came of
// it: one line of its history, one event.
func (s *pushStorm) decided(f *pushFigures) {
	s.t.Helper()
	f.Missed = 0
	theirs := map[string]string{}
	tally := map[string]int{} // of Store Management, whose audits have no number: by account and decision
	for _, audit := range s.Audits() {
		if !strings.HasPrefix(fmt.Sprint(audit["appid"]), ourAppIDs) {
			continue
		}
		theirs[fmt.Sprint(audit["appid"], " ", number(audit["id"]))] = fmt.Sprint(audit["status"])
		tally[fmt.Sprint(audit["appid"], " ", audit["status"])]++
	}
	events := map[string]int{}
	for _, row := range s.Query(`SELECT payload->'object'->>'id' AS id FROM outbox WHERE type LIKE '%.audit.decided'`) {
		events[fmt.Sprint(row["id"])]++
	}
	rows := s.Query(`SELECT a.id, m.appid, a.wechat_audit_id, a.status, (SELECT string_agg(h.status || ' ' || h.source, ', ') FROM audit_history h
		WHERE h.tenant_id = a.tenant_id AND h.audit_id = a.id AND h.status IN ('approved', 'rejected')) AS history
		FROM audits a JOIN merchants m ON m.tenant_id = a.tenant_id AND m.id = a.merchant_id`)
	if len(rows) != len(theirs) {
		s.t.Errorf("%d audits, and WeChat has %d", len(rows), len(theirs))
	}
	for _, row := range rows {
		status := fmt.Sprint(row["status"])
		if row["wechat_audit_id"] != nil && theirs[fmt.Sprint(row["appid"], " ", row["wechat_audit_id"])] != status {
			f.Missed++
			s.t.Errorf("WeChat decided otherwise: %v", row)
		}
		tally[fmt.Sprint(row["appid"], " ", status)]--
		if row["history"] != status+" event" {
			s.t.Errorf("decided not once, or not by its push: %v", row)
		}
		id := typeid.Format(typeid.Audit, row["id"].([16]byte))
		if n := events[id]; n != 1 {
			f.Twice += max(0, n-1)
			s.t.Errorf("%d events of the decision %v", n, row)
		}
	}
	for what, n := range tally {
		if n != 0 {
			s.t.Errorf("%s: %d more at WeChat than here", what, n)
		}
	}
}

// stands compares the authorisations with WeChat's.
func (s *pushStorm) stands() {
	s.t.Helper()
	var all struct {
		Accounts []struct {
			AppID      string
			Authorized bool
		}
	}
	s.Control("GET", "accounts", nil, &all)
	theirs := map[string]bool{}
	for _, account := range all.Accounts {
		theirs[account.AppID] = account.Authorized
	}
	for _, m := range s.guests {
		if status := s.Client(s.Settled, "").Do("GET", "/v1/merchants/"+m.appid, nil).Get("status"); (status == "authorized") != theirs[m.appid] {
			s.t.Errorf("%s is %s here, and authorized at WeChat: %t", m.appid, status, theirs[m.appid])
		}
	}
}
