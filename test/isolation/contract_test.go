package isolation

import (
	"bytes"
	"cmp"
	"image"
	"image/jpeg"
	"maps"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/mendian/mendian/api"
	"github.com/mendian/mendian/test/world"
)

// An operation is one of the contract's, as far as it decides who may see what.
type operation struct {
	id, method, path string
	scope            string
	parameters       []parameter
	body             any              // the contract's own example
	schema           *openapi3.Schema // of a body that is JSON
	members          []string
}

type parameter struct {
	in, name string
	schema   string // its name in the contract, if it has one
	pattern  *regexp.Regexp
	required bool
	values   []any // the closed set, if it is one
	rules    *openapi3.Schema
}

// key is how the tables below name a parameter.
func (p parameter) key() string {
	return strings.TrimRight(p.in+" "+p.name+" "+p.schema, " ")
}

func (o operation) has(in, name string) bool {
	return slices.ContainsFunc(o.parameters, func(p parameter) bool { return p.in == in && p.name == name })
}

func (o operation) writes() bool { return o.method != http.MethodGet }

func (o operation) admin() bool { return o.scope == "admin" }

// onePixel is a JPEG.
var onePixel = func() []byte {
	var b bytes.Buffer
	if err := jpeg.Encode(&b, image.NewGray(image.Rect(0, 0, 1, 1)), nil); err != nil {
		panic(err)
	}
	return b.Bytes()
}()

// contract is every operation of api/openapi.yaml.
var contract = sync.OnceValues(func() ([]operation, error) {
	doc, err := openapi3.NewLoader().LoadFromData(api.Spec)
	if err != nil {
		return nil, err
	}
	var out []operation
	for route, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			o := operation{id: op.OperationID, method: method, path: doc.Servers[0].URL + route}
			o.scope, _ = op.Extensions["x-scope"].(string)
			for _, list := range []openapi3.Parameters{item.Parameters, op.Parameters} {
				for _, p := range list {
					s := p.Value.Schema
					o.parameters = append(o.parameters, parameter{in: p.Value.In, name: p.Value.Name, schema: path.Base(s.Ref), required: p.Value.Required,
						pattern: regexp.MustCompile(s.Value.Pattern), values: s.Value.Enum, rules: s.Value})
					if s.Ref == "" {
						o.parameters[len(o.parameters)-1].schema = ""
					}
				}
			}
			if op.RequestBody != nil {
				media := op.RequestBody.Value.Content["application/json"]
				if media == nil {
					media = op.RequestBody.Value.Content["multipart/form-data"]
					form := world.Form{File: onePixel, Texts: map[string]string{}}
					for name, v := range media.Example.(map[string]any) {
						if media.Schema.Value.Properties[name].Value.Format != "binary" {
							form.Texts[name] = v.(string)
						}
					}
					o.body = form
				} else {
					o.body, o.schema = media.Example, media.Schema.Value
				}
				for _, e := range media.Examples {
					o.body = e.Value.Value
				}
				o.members = slices.Sorted(maps.Keys(media.Schema.Value.Properties))
			}
			out = append(out, o)
		}
	}
	slices.SortFunc(out, func(a, b operation) int { return cmp.Or(cmp.Compare(a.path, b.path), cmp.Compare(a.method, b.method)) })
	return out, nil
})

func operationsOf(t testing.TB) []operation {
	t.Helper()
	list, err := contract()
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 30 {
		t.Fatalf("saw %d operations, which can't be all", len(list))
	}
	return list
}

// How a parameter that names something of a tenant is answered when that is
// another tenant's.
type how int

const (
	plain  how = iota // it names nothing of a tenant
	hidden            // 404: there is no such thing
	filter            // 200: a list without it
	bound             // 400 invalid_cursor: made for another tenant
)

// A meaning is what a parameter names.
type meaning struct {
	how    how
	names  []kind
	always string // plain, and needed: what to send
	why    string // plain: why it is nothing of a tenant's
}

// meanings are the contract's parameters, all of them. One that isn't here
// fails the matrix, so that whoever adds it says what it names.
var meanings = map[string]meaning{
	"path merchant_id MerchantRef":   {how: hidden, names: []kind{merchants}},
	"header Merchant-Id MerchantRef": {how: hidden, names: []kind{merchants}},
	"query merchant_id MerchantRef":  {how: hidden, names: []kind{merchants}},
	"path id StoreRef":               {how: hidden, names: []kind{stores, numbers}},
	"path id MapPOIID":               {how: hidden, names: []kind{places}},
	"path id LegacyStoreRef":         {how: hidden, names: []kind{legacies, legacyNumbers}},
	"path id GoodsRef":               {how: hidden, names: []kind{goods, goodsNumbers}},
	"path id AuditID":                {how: hidden, names: []kind{audits}},
	"path id OperationID":            {how: hidden, names: []kind{operations}},
	"path id EventID":                {how: hidden, names: []kind{events}},
	"path id APIKeyID":               {how: hidden, names: []kind{keys}},
	"path id AuthorizationLinkID":    {how: hidden, names: []kind{links}},

	"query subject AnyID":                    {how: filter, names: []kind{stores, places, legacies, goods, programs}},
	"query wechat_audit_id WeChatNumber":     {how: filter, names: []kind{auditIDs}},
	"query poi_id WeChatNumber":              {how: filter, names: []kind{numbers}},
	"query map_poi_id WeChatNumber":          {how: filter, names: []kind{mapNumbers}},
	"query base_id WeChatNumber":             {how: filter, names: []kind{baseIDs}},
	"query goods_id":                         {how: filter, names: []kind{goodsNumbers}},
	"query client_reference ClientReference": {how: filter, names: []kind{references}},
	"query appid AppID":                      {how: filter, names: []kind{merchants}},

	"query cursor": {how: bound, names: []kind{cursorsKind}},

	"path id NumericID":           {always: "440105", why: "a district of the map, the same for everybody"},
	"query parent_id NumericID":   {why: "a district or category, the same for everybody"},
	"query district_id NumericID": {why: "a district of the map"},
	"query keyword":               {why: "a text to search for"},
	"query scheme CategoryScheme": {always: "store_program", why: "a closed set"},
	"query level":                 {why: "a closed set"},
	"query level DistrictLevel":   {why: "a closed set"},
	"query sensitive":             {why: "a yes or no"},
	"query kind AuditKind":        {why: "a closed set"},
	"query kind":                  {why: "names of writes, the same for everybody"},
	"query permission_set":        {why: "WeChat's own numbers"},
	"query source Source":         {why: "a closed set; the matrix tries each"},
	"query after":                 {why: "a number in the tenant's own sequence"},
	"query type":                  {why: "names of events, the same for everybody"},
	"query validate_only":         {why: "a yes or no"},
	"query limit":                 {why: "a count"},
	"query updated_after":         {why: "a time"},
	"query submitted_after":       {why: "a time"},
	"header If-Match":             {why: "compared with a row that was found in the tenant before"},
	"header If-None-Match":        {why: "compared with a row that was found in the tenant before"},
	"header Idempotency-Key":      {why: "a name in the tenant's own space: (*matrix).sameIdempotencyKey"},

	"path id StoreMigrationID":        {how: hidden, names: []kind{migrations}},
	"path legacy_poi_id WeChatNumber": {always: sharedLegacy, why: "a part of the migration that the path names; both tenants have one of this number"},

	"query status StoreMigrationStatus":     {why: "a closed set"},
	"query status StoreMigrationItemStatus": {why: "a closed set"},

	"query status MerchantStatus":    {why: "a closed set"},
	"query status StoreStatus":       {why: "a closed set"},
	"query status LegacyStoreStatus": {why: "a closed set"},
	"query status MapPOIStatus":      {why: "a closed set"},
	"query status GoodsStatus":       {why: "a closed set"},
	"query status AuditStatus":       {why: "a closed set"},
	"query status OperationStatus":   {why: "a closed set"},
	"query status APIKeyStatus":      {why: "a closed set"},
}

// bodyMeanings are the members of bodies that could name something of a
// tenant, by operation.
var bodyMeanings = map[string]meaning{
	"createAPIKey merchant_ids":                    {how: hidden, names: []kind{merchants}},
	"createAuthorizationLink expected_appid":       {why: "an account of WeChat's, which its administrator has to consent for; one that another tenant holds is refused then (attack 71)"},
	"resolveOperation wechat_ids":                  {why: "WeChat's numbers, which become those of an operation that was found in the tenant before"},
	"createStore map_poi_id":                       {why: "a place on Tencent's map, the same for everybody"},
	"createStore card_id":                          {why: "WeChat's, which looks it up in the acting account"},
	"createStore legacy_poi_id":                    {why: "WeChat's, which looks it up in the acting account"},
	"createStore qualification_media_ids":          {why: "WeChat's, which looks it up in the acting account"},
	"applyStoreProgram head_image_media_id":        {why: "WeChat's, which looks it up in the acting account"},
	"applyStoreProgram qualification_media_ids":    {why: "WeChat's, which looks it up in the acting account"},
	"applyStoreProgram organization_code_media_id": {why: "WeChat's, which looks it up in the acting account"},
	"applyStoreProgram other_file_media_ids":       {why: "WeChat's, which looks it up in the acting account"},
	"modifyStoreProgram head_image_media_id":       {why: "WeChat's, which looks it up in the acting account"},
	"applyStoreProgram primary_category_id":        {why: "a category, the same for everybody"},
	"applyStoreProgram secondary_category_id":      {why: "a category, the same for everybody"},
	"createMapPOI district_id":                     {why: "a district of the map, the same for everybody"},
	"createMapPOI legacy_poi_id":                   {why: "WeChat's, which looks it up in the acting account"},
	"createGoods client_reference":                 {why: "a name in the merchant's own space"},
	"createGoods cover_media_id":                   {why: "WeChat's, which looks it up in the acting account"},
	"createGoods third_party_appid":                {why: "a mini program of anybody's, which the item opens; the gateway never acts for it"},
	"updateGoods cover_media_id":                   {why: "WeChat's, which looks it up in the acting account"},
	"updateGoods third_party_appid":                {why: "a mini program of anybody's, which the item opens; the gateway never acts for it"},
	"createLegacyStore client_reference":           {why: "a name in the merchant's own space"},
	"createMapPOI client_reference":                {why: "a name in the merchant's own space"},
	"setStoreCard card_id":                         {why: "WeChat's, which looks it up in the acting account"},
	"updateStore card_id":                          {why: "WeChat's, which looks it up in the acting account"},
	"createStore client_reference":                 {why: "a name in the merchant's own space"},
	"updateMerchant client_reference":              {why: "a name in the tenant's own space"},
	"createAuthorizationLink client_reference":     {why: "a name in the tenant's own space"},

	"updateStoreMigrationItem map_poi_id":              {why: "a place on Tencent's map, the same for everybody"},
	"updateStoreMigrationItem card_id":                 {why: "WeChat's, which looks it up in the acting account"},
	"updateStoreMigrationItem qualification_media_ids": {why: "WeChat's, which looks it up in the acting account"},
}

var couldName = regexp.MustCompile(`(^|_)(ids?|appids?|reference)$`)

// Every parameter and every member of a body that could name something of a
// tenant has a meaning above, and nothing stands there that the contract
// doesn't have.
func TestEveryParameterHasAMeaning(t *testing.T) {
	t.Parallel()
	seen, inBodies, withIDs := map[string]bool{}, map[string]bool{}, 0
	for _, op := range operationsOf(t) {
		if op.admin() {
			continue // answers no tenant's key at all: TestSurfacesAreApart
		}
		named := false
		for _, p := range op.parameters {
			m, ok := meanings[p.key()]
			if !ok {
				t.Errorf("%s: what does %q name? Say so in meanings", op.id, p.key())
			}
			seen[p.key()] = true
			named = named || m.how != plain
			if m.how == plain && m.why == "" || m.how == plain && p.required && m.always == "" {
				t.Errorf("%q: a plain parameter needs a reason, and a value where it is required", p.key())
			}
		}
		for _, member := range op.members {
			if !couldName.MatchString(member) {
				continue
			}
			key := op.id + " " + member
			if _, ok := bodyMeanings[key]; !ok {
				t.Errorf("what does %q name? Say so in bodyMeanings", key)
			}
			inBodies[key] = true
			named = named || bodyMeanings[key].how != plain
		}
		if strings.Contains(op.path, "{") && !named {
			t.Errorf("%s: no parameter of %s names anything", op.id, op.path)
		}
		if named {
			withIDs++
		}
	}
	if withIDs < 22 {
		t.Errorf("%d routes take an id, which can't be all", withIDs)
	}
	for key := range meanings {
		if !seen[key] {
			t.Errorf("no operation has the parameter %q", key)
		}
	}
	for key := range bodyMeanings {
		if !inBodies[key] {
			t.Errorf("no operation has the member %q", key)
		}
	}
}
