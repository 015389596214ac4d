package wechat

import (
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// declared are all calls that this package knows, by the name of their
// variable: the 29 of design api.md §5.16, the component's own, and the two
// that platform.md §7.4 and §10 add.
var declared = map[string]struct {
	endpoint *Endpoint
	method   string
	path     string
	sets     []int // platform.md §8.2
	quota    Bucket
	risk     Risk // design api.md §5.16
	family   Family
}{
	// document 000
	"GetMerchantCategory":  {GetMerchantCategory, http.MethodGet, "/wxa/get_merchant_category", []int{8, 9, 10, 13, 37}, Bucket{}, Read, FamilyMerchantCategory},
	"ApplyMerchant":        {ApplyMerchant, http.MethodPost, "/wxa/apply_merchant", []int{8, 9, 10, 13}, Bucket{}, SelfFencing, FamilyStoreProgram},
	"GetMerchantAuditInfo": {GetMerchantAuditInfo, http.MethodGet, "/wxa/get_merchant_audit_info", []int{8, 9, 10, 13}, Bucket{}, Read, FamilyStoreProgram},
	"ModifyMerchant":       {ModifyMerchant, http.MethodPost, "/wxa/modify_merchant", []int{8, 9, 10, 13}, Bucket{}, Overwrite, FamilyStoreProgram},
	"GetDistrict":          {GetDistrict, http.MethodGet, "/wxa/get_district", []int{8, 9, 10, 13, 37}, Bucket{}, Read, FamilyDistrict},
	"SearchMapPOI":         {SearchMapPOI, http.MethodPost, "/wxa/search_map_poi", []int{8, 9, 10, 13, 37}, Bucket{}, Read, FamilyMapPOI},
	"CreateMapPOI":         {CreateMapPOI, http.MethodPost, "/wxa/create_map_poi", []int{8, 9, 10, 13, 37}, Bucket{}, Create, FamilyMapPOI},
	"AddStore":             {AddStore, http.MethodPost, "/wxa/add_store", []int{8, 9, 10, 13}, Bucket{}, SelfFencing, FamilyStore},
	"UpdateStore":          {UpdateStore, http.MethodPost, "/wxa/update_store", []int{8, 9, 10, 13}, Bucket{}, Overwrite, FamilyStore},
	"GetStoreInfo":         {GetStoreInfo, http.MethodPost, "/wxa/get_store_info", []int{8, 9, 10, 13}, Bucket{}, Read, FamilyStore},
	"GetStoreList":         {GetStoreList, http.MethodPost, "/wxa/get_store_list", []int{8, 9, 10, 13}, Bucket{}, Read, FamilyStore},
	"DelStore":             {DelStore, http.MethodPost, "/wxa/del_store", []int{8, 9, 10, 13}, Bucket{}, SelfFencing, FamilyStore},
	"GetStoreCard":         {GetStoreCard, http.MethodPost, "/card/storewxa/get", []int{8, 9, 10, 13}, Bucket{}, Read, FamilyCard},
	"SetStoreCard":         {SetStoreCard, http.MethodPost, "/card/storewxa/set", []int{8, 9, 10, 13}, Bucket{}, Overwrite, FamilyCard},
	// document 001
	"AddPoi":        {AddPoi, http.MethodPost, "/cgi-bin/poi/addpoi", []int{8, 9, 10, 13}, Bucket{}, Create, FamilyLegacyStore},
	"GetPoi":        {GetPoi, http.MethodPost, "/cgi-bin/poi/getpoi", []int{8, 9, 10, 13}, Bucket{}, Read, FamilyLegacyStore},
	"GetPoiList":    {GetPoiList, http.MethodPost, "/cgi-bin/poi/getpoilist", []int{8, 9, 10, 13}, Bucket{}, Read, FamilyLegacyStore},
	"UpdatePoi":     {UpdatePoi, http.MethodPost, "/cgi-bin/poi/updatepoi", []int{8, 9, 10, 13}, Bucket{}, Overwrite, FamilyLegacyStore},
	"DelPoi":        {DelPoi, http.MethodPost, "/cgi-bin/poi/delpoi", []int{8, 9, 10, 13}, Bucket{}, SelfFencing, FamilyLegacyStore},
	"GetWXCategory": {GetWXCategory, http.MethodGet, "/cgi-bin/poi/getwxcategory", []int{8, 9, 10, 13}, Bucket{}, Read, FamilyLegacyStore},
	"UploadImage":   {UploadImage, http.MethodPost, "/cgi-bin/media/uploadimg", []int{1, 8, 9, 11, 18, 37, 100}, Bucket{}, Harmless, FamilyMedia},
	"UploadMedia":   {UploadMedia, http.MethodPost, "/cgi-bin/media/upload", []int{1, 3, 8, 9, 11, 19, 30, 31, 100}, Bucket{}, Harmless, FamilyMedia},
	// document 004
	"AddGoods":          {AddGoods, http.MethodPost, "/wxaapi/broadcast/goods/add", []int{52}, Bucket{"goods-audit", 500}, Create, FamilyGoods},
	"ResetGoodsAudit":   {ResetGoodsAudit, http.MethodPost, "/wxaapi/broadcast/goods/resetaudit", []int{52}, Bucket{"goods-withdraw", 500}, SelfFencing, FamilyGoods},
	"AuditGoods":        {AuditGoods, http.MethodPost, "/wxaapi/broadcast/goods/audit", []int{52}, Bucket{"goods-audit", 500}, SelfFencing, FamilyGoods},
	"DeleteGoods":       {DeleteGoods, http.MethodPost, "/wxaapi/broadcast/goods/delete", []int{52}, Bucket{"goods-delete", 1000}, SelfFencing, FamilyGoods},
	"UpdateGoods":       {UpdateGoods, http.MethodPost, "/wxaapi/broadcast/goods/update", []int{52}, Bucket{"goods-update", 1000}, Overwrite, FamilyGoods},
	"GetGoodsWarehouse": {GetGoodsWarehouse, http.MethodPost, "/wxa/business/getgoodswarehouse", []int{52}, Bucket{"goods-status", 1000}, Read, FamilyGoods},
	"GetApproved":       {GetApproved, http.MethodGet, "/wxaapi/broadcast/goods/getapproved", []int{52}, Bucket{"goods-list", 10000}, Read, FamilyGoods},
	// platform.md
	"StartPushTicket":    {StartPushTicket, http.MethodPost, "/cgi-bin/component/api_start_push_ticket", nil, Bucket{}, Harmless, FamilyComponent},
	"GetComponentToken":  {GetComponentToken, http.MethodPost, "/cgi-bin/component/api_component_token", nil, Bucket{}, Overwrite, FamilyComponent},
	"CreatePreAuthCode":  {CreatePreAuthCode, http.MethodPost, "/cgi-bin/component/api_create_preauthcode", nil, Bucket{}, Harmless, FamilyComponent},
	"QueryAuth":          {QueryAuth, http.MethodPost, "/cgi-bin/component/api_query_auth", nil, Bucket{}, SelfFencing, FamilyComponent},
	"GetAuthorizerToken": {GetAuthorizerToken, http.MethodPost, "/cgi-bin/component/api_authorizer_token", nil, Bucket{}, Overwrite, FamilyComponent},
	"GetAuthorizerInfo":  {GetAuthorizerInfo, http.MethodPost, "/cgi-bin/component/api_get_authorizer_info", nil, Bucket{}, Read, FamilyComponent},
	"GetAuthorizerList":  {GetAuthorizerList, http.MethodPost, "/cgi-bin/component/api_get_authorizer_list", nil, Bucket{}, Read, FamilyComponent},
	"SendCustomMessage":  {SendCustomMessage, http.MethodPost, "/cgi-bin/message/custom/send", nil, Bucket{}, Create, FamilyMessage},
	"GetQuota":           {GetQuota, http.MethodPost, "/cgi-bin/openapi/quota/get", nil, Bucket{}, Read, FamilyQuota},
}

// the29 are the calls that the product is about (design api.md §5.16).
const the29 = 29

// Each call is declared once, as the documents have it, and no other is.
func TestDeclaredCalls(t *testing.T) {
	t.Parallel()
	var want []string
	business := 0
	byName, byPath := map[string]string{}, map[string]string{}
	for name, d := range declared {
		want = append(want, name)
		e := d.endpoint
		if e.Method != d.method || e.Path != d.path || !slices.Equal(e.Sets, d.sets) || e.Quota != d.quota || e.Risk != d.risk || e.Family != d.family {
			t.Errorf("%s is declared as %+v, want %+v", name, *e, d)
		}
		if len(d.sets) > 0 {
			business++
		}
		if other := byName[e.Name]; e.Name == "" || other != "" {
			t.Errorf("%s is named %q, as %s is", name, e.Name, other)
		}
		if other := byPath[e.Path]; other != "" {
			t.Errorf("%s has the path of %s", name, other)
		}
		byName[e.Name], byPath[e.Path] = name, name
	}
	if business != the29 {
		t.Errorf("%d calls need a permission set, want the %d of api.md §5.16", business, the29)
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, endpointVars(t)); diff != "" {
		t.Errorf("package wechat declares other calls than this test lists (-listed +declared):\n%s", diff)
	}
}

// endpointVars are the package's variables that hold an Endpoint, as the
// source has them.
func endpointVars(t *testing.T) []string {
	t.Helper()
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), f.Name(), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, s := range g.Specs {
				v := s.(*ast.ValueSpec)
				if len(v.Values) == 1 && makesEndpoint(v.Values[0]) {
					names = append(names, v.Names[0].Name)
				}
			}
		}
	}
	slices.Sort(names)
	return names
}

// makesEndpoint is true for &Endpoint{…} and component(…).
func makesEndpoint(x ast.Expr) bool {
	var typ ast.Expr
	switch x := x.(type) {
	case *ast.UnaryExpr:
		if lit, ok := x.X.(*ast.CompositeLit); ok {
			typ = lit.Type
		}
	case *ast.CallExpr:
		typ = x.Fun
	}
	id, ok := typ.(*ast.Ident)
	return ok && (id.Name == "Endpoint" || id.Name == "component")
}
