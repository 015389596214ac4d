package api

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

func load(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(Spec)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// each calls f for every operation of the contract.
func each(doc *openapi3.T, f func(name string, op *openapi3.Operation)) {
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			f(method+" "+path, op)
		}
	}
}

// Validate also checks every example against its schema.
func TestSpecIsValid(t *testing.T) {
	t.Parallel()
	doc := load(t)
	if doc.OpenAPI != "3.0.3" {
		t.Errorf("openapi = %q, want 3.0.3: 3.1 documents cost a millisecond a request (design stack.md §0)", doc.OpenAPI)
	}
	if err := doc.Validate(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestEveryOperationIsDescribed(t *testing.T) {
	t.Parallel()
	ids := map[string]string{}
	each(load(t), func(name string, op *openapi3.Operation) {
		if op.Summary == "" || op.Description == "" || len(op.Tags) != 1 {
			t.Errorf("%s: want a summary, a description and one tag", name)
		}
		if other, ok := ids[op.OperationID]; ok || op.OperationID == "" {
			t.Errorf("%s: operationId %q is missing or also used by %s", name, op.OperationID, other)
		}
		ids[op.OperationID] = name
		for _, p := range op.Parameters {
			if p.Value.Description == "" {
				t.Errorf("%s: parameter %s has no description", name, p.Value.Name)
			}
		}
		if op.RequestBody != nil {
			for _, media := range op.RequestBody.Value.Content {
				if media.Example == nil && len(media.Examples) == 0 {
					t.Errorf("%s: the request has no example", name)
				}
				if b := media.Schema.Value.AdditionalProperties.Has; b == nil || *b {
					t.Errorf("%s: the request lets unknown members pass", name)
				}
			}
		}
		for status, r := range op.Responses.Map() {
			for _, media := range r.Value.Content {
				if media.Example == nil && len(media.Examples) == 0 {
					t.Errorf("%s: %s has no example", name, status)
				}
			}
			if _, ok := r.Value.Headers["Request-Id"]; !ok {
				t.Errorf("%s: %s does not name the header Request-Id", name, status)
			}
		}
	})
}

func TestEveryOperationHasAScope(t *testing.T) {
	t.Parallel()
	each(load(t), func(name string, op *openapi3.Operation) {
		scope, _ := op.Extensions["x-scope"].(string)
		admin := strings.Contains(name, " /admin/")
		switch {
		case scope == "":
			t.Errorf("%s: no x-scope", name)
		case admin != (scope == "admin"):
			t.Errorf("%s: x-scope = %s; exactly the operations below /admin need admin", name, scope)
		case scope == "none" && op.OperationID != "getMe":
			t.Errorf("%s: only getMe needs no scope", name)
		case strings.HasSuffix(scope, ":read") != strings.HasPrefix(name, "GET ") && scope != "none" && !admin:
			t.Errorf("%s: x-scope = %s does not fit the method", name, scope)
		}
	})
}

// Objects without a name become anonymous Go types and nameless boxes in the
// Swagger page, so every object schema is a component.
func TestEverySchemaHasAName(t *testing.T) {
	t.Parallel()
	doc := load(t)
	var walk func(where string, s *openapi3.SchemaRef, named bool)
	walk = func(where string, s *openapi3.SchemaRef, named bool) {
		if s == nil || s.Ref != "" {
			return
		}
		if s.Value.Type.Is("object") && !named {
			t.Errorf("%s: an object without a name", where)
		}
		if s.Value.Description == "" && named {
			t.Errorf("%s: no description", where)
		}
		if len(s.Value.AllOf) > 0 || s.Value.ReadOnly || s.Value.WriteOnly {
			t.Errorf("%s: allOf, readOnly and writeOnly are not used here (design stack.md §0)", where)
		}
		walk(where+"[]", s.Value.Items, false)
		for name, p := range s.Value.Properties {
			walk(where+"."+name, p, false)
		}
	}
	for name, s := range doc.Components.Schemas {
		walk(name, s, true)
	}
	each(doc, func(name string, op *openapi3.Operation) {
		for _, p := range op.Parameters {
			walk(name+" "+p.Value.Name, p.Value.Schema, false)
		}
		if op.RequestBody != nil {
			for _, media := range op.RequestBody.Value.Content {
				walk(name, media.Schema, false)
			}
		}
		for status, r := range op.Responses.Map() {
			for _, media := range r.Value.Content {
				walk(name+" "+status, media.Schema, false)
			}
		}
	})
}

// A secret has no member to travel in (design security.md §11, API3).
func TestNoAnswerHasASecret(t *testing.T) {
	t.Parallel()
	doc := load(t)
	allowed := []string{"APIKeyCreated.token", "Merchant.token", "ComponentCredentials.component_secret",
		"ComponentCredentials.message_token", "TenantHealth.component_token", "TenantHealth.merchant_tokens"}
	for name, s := range doc.Components.Schemas {
		if s.Value.AdditionalProperties.Has != nil && !*s.Value.AdditionalProperties.Has && name != "ComponentCredentials" {
			continue // a request
		}
		for member := range s.Value.Properties {
			if !strings.Contains(member, "token") && !strings.Contains(member, "secret") && !strings.Contains(member, "ticket") ||
				member == "ticket" || strings.HasPrefix(member, "last_ticket") {
				continue
			}
			if !slices.Contains(allowed, name+"."+member) {
				t.Errorf("%s.%s looks like a secret", name, member)
			}
		}
	}
}

// Every POST, PUT and PATCH that writes at WeChat, which are those with an
// Idempotency-Key, can be asked whether it would be taken (design api.md §3.3;
// docs/development.md says how an operation gets it).
func TestWritesCanBeValidated(t *testing.T) {
	t.Parallel()
	exempt := map[string]string{
		"syncMerchants": "compares, and writes nothing at WeChat",
	}
	doc := load(t)
	for path, item := range doc.Paths.Map() {
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
			op := item.GetOperation(method)
			if op == nil || op.Parameters.GetByInAndName("header", "Idempotency-Key") == nil || exempt[op.OperationID] != "" {
				continue
			}
			if op.Parameters.GetByInAndName("query", "validate_only") == nil {
				t.Errorf("%s %s: no parameter ValidateOnly", method, path)
			}
			if op.Responses.Value("200") == nil {
				t.Errorf("%s %s: no answer 200, which is a Validation", method, path)
			}
		}
	}
}
