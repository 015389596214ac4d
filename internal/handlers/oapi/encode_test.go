package oapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// What answers say is what encoding/json would say, byte for byte, but for two
// characters of which JSON knows two names.
func TestEncode(t *testing.T) {
	t.Parallel()
	for _, test := range []func(*testing.T){
		alike[StoreList], alike[GoodsList], alike[StoreProgram], alike[LegacyStoreList], alike[MapPOI], alike[MapPOIPage], alike[StoreCard],
		alike[AuditList], alike[OperationList], alike[AdminOperationList], alike[MerchantList], alike[QuotaList], alike[Validation],
		alike[StoreMigrationItemList], alike[StoreMigrationList], alike[EventList], alike[ChangeList], alike[DistrictList], alike[CategoryList],
		alike[APIKeyCreated], alike[APIKeyList], alike[TenantList], alike[TenantHealth], alike[AuthorizationLinkCreated], alike[AuthorizationLink],
		alike[Me], alike[Image], alike[TemporaryMedia], alike[TokenRefresh], alike[TicketRestart], alike[ComponentCredentials],
	} {
		test(t)
	}
}

var names = strings.NewReplacer(`\\`, `\\`, `\u0008`, `\b`, `\u000c`, `\f`)

func alike[T any](t *testing.T) {
	name := fmt.Sprintf("%T", *new(T))
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		anything := rapid.MakeCustom[T](rapid.MakeConfig{Types: map[reflect.Type]*rapid.Generator[any]{
			reflect.TypeFor[time.Time](): rapid.Custom(func(t *rapid.T) any {
				return time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "s"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns")).UTC()
			}),
			reflect.TypeFor[any](): rapid.OneOf(rapid.String().AsAny(), rapid.Float64().AsAny(), rapid.Bool().AsAny(), rapid.Just[any](nil)),
		}})
		rapid.Check(t, func(t *rapid.T) {
			v := anything.Draw(t, name)
			var want, got bytes.Buffer
			if err := json.NewEncoder(&want).Encode(v); err != nil {
				t.Skip(err) // no JSON can hold it
			}
			if err := encode(&got, v); err != nil || names.Replace(got.String()) != want.String() {
				t.Errorf("%v\n%s\nwant\n%s", err, &got, &want)
			}
		})
	})
}

// BenchmarkEncode writes a page of two stores, as GET /v1/stores answers it.
func BenchmarkEncode(b *testing.B) {
	store := Store{ID: new("sto_01jd7k4b2rf6z9t3n7r1s6v2zb"), MerchantID: "mch_01jd7k3v9wf4x8s2m6q0r5t1ya", Name: new("麦当劳(艺苑路店)"),
		Address: new("广东省广州市海珠区艺苑路11号"), Status: "active", Photos: []string{"http://mmbiz.qpic.cn/mmbiz_jpg/tW66AWvE2K4EJxIYOVpiaGOkfg0iayibiaP2xHOChvbmKQD5uh8ymibbEKlTTPmjTdQ8ia43sULLeG1pT2psOfPic4kTw/0?wx_fmt=jpeg"}}
	page := StoreList{Data: []Store{store, store}}
	for name, write := range map[string]func(*bytes.Buffer) error{
		"encoding/json": func(into *bytes.Buffer) error { return json.NewEncoder(into).Encode(page) },
		"sonic":         func(into *bytes.Buffer) error { return encode(into, page) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var into bytes.Buffer
				if err := write(&into); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
