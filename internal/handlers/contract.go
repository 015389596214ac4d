package handlers

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/routers"
	"github.com/labstack/echo/v4"

	"github.com/mendian/mendian/internal/ledger"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/tenant"
)

// An operation is what the edge has to know of one operation of the contract.
type operation struct {
	id       string
	scope    string // "stores:write", "admin" or "none"
	query    map[string]bool
	lists    map[string]bool // of them those that may be repeated
	hasBody  bool
	needBody bool
	form     *openapi3.Schema // of a body that is a form with a file; nil: it is JSON
	// deprecation is the header of an operation that the contract deprecates
	// (RFC 9745); "": it doesn't.
	deprecation string
	route       *routers.Route
	parameters  []*openapi3.Parameter // its own and its path's
}

// Kin-openapi compares times with a pattern, which knows no calendar: the 30th
// of February would pass it and then fit no type of ours.
func init() {
	openapi3.DefineStringFormatValidator("date-time", openapi3.NewCallbackValidator(func(text string) error {
		_, err := time.Parse(time.RFC3339, text)
		return err
	}))
}

// loadContract reads the contract once, at start, and returns its operations
// by "METHOD /v1/echo/:template".
func loadContract(spec []byte) (map[string]*operation, error) {
	doc, err := openapi3.NewLoader().LoadFromData(spec)
	if err != nil {
		return nil, fmt.Errorf("contract: %w", err)
	}
	base := doc.Servers[0].URL
	operations := map[string]*operation{}
	for path, item := range doc.Paths.Map() {
		template := base + strings.NewReplacer("{", ":", "}", "").Replace(path)
		for method, op := range item.Operations() {
			o := &operation{
				id: op.OperationID, query: map[string]bool{}, lists: map[string]bool{},
				route: &routers.Route{Spec: doc, Server: doc.Servers[0], Path: path, PathItem: item, Method: method, Operation: op},
			}
			o.scope, _ = op.Extensions["x-scope"].(string)
			if o.scope == "" {
				return nil, fmt.Errorf("contract: %s has no x-scope", op.OperationID)
			}
			if op.Deprecated {
				since, err := time.Parse(time.DateOnly, fmt.Sprint(op.Extensions["x-deprecated-since"]))
				if err != nil {
					return nil, fmt.Errorf("contract: x-deprecated-since of %s: %w", op.OperationID, err)
				}
				o.deprecation = "@" + strconv.FormatInt(since.Unix(), 10)
			}
			for _, ref := range slices.Concat(item.Parameters, op.Parameters) {
				p := ref.Value
				if p.Schema == nil || p.Schema.Value.Type.Is(openapi3.TypeObject) {
					return nil, fmt.Errorf("contract: %s of %s is an object: how one is sent isn't known here", p.Name, op.OperationID)
				}
				if p.In == openapi3.ParameterInQuery {
					o.query[p.Name] = true
					o.lists[p.Name] = p.Schema.Value.Type.Is(openapi3.TypeArray)
				}
				o.parameters = append(o.parameters, p)
			}
			if op.RequestBody != nil {
				o.hasBody, o.needBody = true, op.RequestBody.Value.Required
				if media := op.RequestBody.Value.Content[formType]; media != nil {
					o.form = media.Schema.Value
				}
			}
			operations[method+" "+template] = o
		}
	}
	return operations, nil
}

// takesHeader reports whether the contract gives the operation this header.
func (o *operation) takesHeader(name string) bool {
	return slices.ContainsFunc(o.parameters, func(p *openapi3.Parameter) bool { return p.In == openapi3.ParameterInHeader && p.Name == name })
}

// noOperation answers a request below /v1 that no route takes: 405 where
// another method would do, 404 otherwise.
func (e *Edge) noOperation(c echo.Context) error {
	var allowed []string
	for key := range e.operations {
		method, template, _ := strings.Cut(key, " ")
		if matches(template, c.Request().URL.EscapedPath()) {
			allowed = append(allowed, method)
		}
	}
	if allowed == nil {
		return problem.Of(problem.CodeNotFound)
	}
	slices.Sort(allowed)
	c.Response().Header().Set("Allow", strings.Join(slices.Compact(allowed), ", "))
	return problem.Of(problem.CodeMethodNotAllowed)
}

// matches reports whether a path fits a route template ("/v1/stores/:id").
func matches(template, path string) bool {
	want, got := strings.Split(template, "/"), strings.Split(path, "/")
	return slices.EqualFunc(want, got, func(w, g string) bool {
		return w == g || strings.HasPrefix(w, ":") && g != ""
	})
}

// authorize refuses a caller who lacks the operation's scope.
func (o *operation) authorize(who tenant.Caller) error {
	switch o.scope {
	case "none":
		return nil
	case "subject:write": // that of the very subject is asked for once it is known (auditToWrite)
		for _, t := range ledger.Types() {
			if who.Can(t.Scope + ":write") {
				return nil
			}
		}
	case "admin":
		if who.Admin {
			return nil
		}
	default:
		if who.Can(o.scope) {
			return nil
		}
	}
	return problem.Of(problem.CodeScopeMissing).With("required", o.scope)
}
