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
