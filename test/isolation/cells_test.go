package isolation

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/test/world"
)

// A cell is a request that uses something foreign, and what it must be told.
type cell struct {
	method, path string
	body         any
	headers      []string
	status       int
	codes        []string // of which one; none: no problem
}

func (c cell) String() string { return fmt.Sprint(c.method, " ", c.path, " ", c.headers) }

var noSuchThing = []string{"not_found", "merchant_not_found", "store_not_found", "goods_not_found"}

// byNumber are the kinds that WeChat numbers for each account by itself.
var byNumber = []kind{numbers, legacyNumbers, goodsNumbers}

// live is what a query needs for an operation's list to come from WeChat,
// where it isn't asked for goods by their numbers: it has no list of all goods.
func (o operation) live() url.Values {
	q := url.Values{"source": {"live"}}
	if o.id == "listGoods" {
		q.Set("status", "approved")
	}
	return q
}

// cells are all requests of an operation in which one parameter is value, of
// kind k, and everything else the caller's own: without an acting merchant,
// with the caller's, and with each of the owner's.
func (m *matrix) cells(op operation, p parameter, k kind, value string, own, owner *side) []cell {
	type choice struct{ acting, source string }
	choices := []choice{{}}
	if op.has("header", "Merchant-Id") && p.name != "Merchant-Id" {
		choices = append(choices, choice{acting: own.acting(op)})
		for _, merchant := range owner.merchants {
			choices = append(choices, choice{acting: merchant})
		}
	}
	if op.has("query", "source") {
		for _, c := range slices.Clone(choices) {
			choices = append(choices, choice{c.acting, "live"})
		}
	}
	var out []cell
	for _, ch := range choices {
		c := cell{method: op.method, body: op.body, path: op.path}
		query := url.Values{}
		for _, q := range op.parameters {
			v := ""
			switch {
			case q.key() == p.key():
				v = value
			case q.in == "header" && q.name == "Merchant-Id":
				v = ch.acting
				if v == "" && p.in == "header" {
					v = own.acting(op)
				}
			case ch.source == "live" && op.live().Has(q.name) && p.name != "goods_id":
				v = op.live().Get(q.name)
			case q.name == "source":
				v = ch.source
			case q.required && meanings[q.key()].how == plain:
				v = meanings[q.key()].always
			case q.required:
				mine := own.ids[meanings[q.key()].names[0]]
				if len(mine) == 0 {
					return nil // one merchant has stores or goods
				}
				v = mine[0]
			}
			if v == "" {
				continue
			}
			switch q.in {
			case "path":
				c.path = strings.Replace(c.path, "{"+q.name+"}", v, 1)
			case "query":
				query.Set(q.name, v)
			case "header":
				c.headers = append(c.headers, q.name, v)
			}
		}
		if len(query) > 0 {
			c.path += "?" + query.Encode()
		}
		foreign := ch.acting != "" && slices.Contains(owner.merchants, ch.acting)
		switch how := meanings[p.key()].how; {
		case !p.pattern.MatchString(value):
			c.status, c.codes = http.StatusBadRequest, []string{"invalid_parameter"}
		case how == hidden && p.in == "header" && op.has("path", "merchant_id"):
			c.status, c.codes = http.StatusBadRequest, []string{"merchant_mismatch"} // whatever the header names that isn't the path's
		case slices.Contains(byNumber, k) && how == hidden && ch.acting == "":
			c.status, c.codes = http.StatusBadRequest, []string{"merchant_required"}
		case how == hidden || foreign:
			c.status, c.codes = http.StatusNotFound, noSuchThing
		case ch.source == "live" && ch.acting == "":
			c.status, c.codes = http.StatusBadRequest, []string{"merchant_required"}
		case how == bound:
			c.status, c.codes = http.StatusBadRequest, []string{"invalid_cursor"}
		case ch.source == "live" && p.name != "goods_id": // WeChat's list has no other filters
			c.status, c.codes = http.StatusBadRequest, []string{"invalid_parameter"}
		default:
			c.status = http.StatusOK
		}
		out = append(out, c)
	}
	return out
}

// valuesFor are what of the owner's is put into a parameter: some of each kind
// that it names, and one of each other kind.
func (m *matrix) valuesFor(op operation, p parameter, owner, not *side) map[string]kind {
	out := map[string]kind{}
	for _, k := range meanings[p.key()].names {
		list := owner.ids[k]
		if k == cursorsKind {
			list = m.cursors[op.id]
		}
		n := 0
		for _, id := range list {
			if n < 6 && (not == nil || !slices.Contains(not.ids[k], id)) {
				out[id] = k
				n++
			}
		}
	}
	if p.in == "path" {
		for k, list := range owner.ids {
			if len(list) == 0 {
				continue
			}
			if id := list[0]; out[id] == "" && (not == nil || !slices.Contains(not.ids[k], id)) && !p.pattern.MatchString(id) {
				out[id] = k
			}
		}
	}
	return out
}

func (m *matrix) try(c *world.Client, x cell) *world.Answer {
	return c.Do(x.method, x.path, x.body, x.headers...)
}

// want says what is wrong with an answer, or nothing.
func (c cell) want(a *world.Answer) error {
	if a.Status != c.status || c.codes != nil && !slices.Contains(c.codes, a.Code()) {
		return fmt.Errorf("%s: %d %s, want %d %v: %s", c, a.Status, a.Code(), c.status, c.codes, a.Body)
	}
	return nil
}

// shows is what of the marks stands in an answer and not in its request.
func shows(a *world.Answer, marks []string, sent string) error {
	head, err := json.Marshal(a.Header)
	if err != nil {
		return err
	}
	text := string(head) + string(a.Body)
	for _, mark := range marks {
		if holds(text, mark) && !strings.Contains(sent, mark) {
			return fmt.Errorf("%s %s shows %q: %s", a.Method, a.Path, mark, a.Body)
		}
	}
	return nil
}

// holds reports whether mark stands in text; WeChat's numbers, of which some
// have five digits, stand there as numbers and not within a random id.
func holds(text, mark string) bool {
	if strings.Trim(mark, "0123456789") != "" {
		return strings.Contains(text, mark)
	}
	return regexp.MustCompile(`(^|[^0-9a-z])` + mark + `($|[^0-9a-z])`).MatchString(text)
}

// nobodys is a value of the same shape that exists nowhere; "" where there is
// none.
func nobodys(k kind, value string) string {
	prefix, _, isID := strings.Cut(value, "_")
	switch {
	case k == cursorsKind || k == references || k == tenants:
		return ""
	case isID:
		return typeid.Format(typeid.Prefix(prefix), typeid.New())
	case strings.HasPrefix(value, "wx"):
		return "wx" + strings.ReplaceAll(uuid.NewString(), "-", "")[:16]
	}
	return "9" + value[1:]
}

// requestID is ours, or WeChat's; and the gateway's address, which is the same in
// every answer, and may hold the number that was asked for.
var requestID = regexp.MustCompile(`req_[0-9a-z]{26}|"rid":"[0-9a-f-]+"|http://127[0-9.]+:[0-9]+`)

// plainly is an answer without what differs from request to request. value
// counts as a word only: a short number may stand within a time.
func plainly(a *world.Answer, value string) string {
	asked := regexp.MustCompile(`\b` + regexp.QuoteMeta(value) + `\b`)
	return fmt.Sprint(a.Status, " ", asked.ReplaceAllString(requestID.ReplaceAllString(string(a.Body), ""), "…"))
}

// beside tells a header that names the acting merchant where the path names
// something already: it is only compared with that. The cells of the path's
// parameter are tried with every acting merchant.
func beside(op operation, p parameter) bool {
	return p.in == "header" && slices.ContainsFunc(op.parameters, func(q parameter) bool { return q.in == "path" && meanings[q.key()].how == hidden })
}
