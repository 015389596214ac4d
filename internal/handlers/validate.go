package handlers

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/labstack/echo/v4"
	mw "github.com/oapi-codegen/echo-middleware"

	"github.com/mendian/mendian/internal/problem"
)

// routed is the validator's router. Echo has found the route already, so the
// operation is taken from the request's state and not searched for again.
type routed struct{}

// FindRoute returns what Echo found.
func (routed) FindRoute(r *http.Request) (*routers.Route, map[string]string, error) {
	s := stateOf(r.Context())
	if s.operation == nil {
		return nil, nil, routers.ErrPathNotFound
	}
	return s.operation.route, s.params, nil
}

// filter is how kin-openapi checks requests: with all errors at once, and with
// messages that hold nothing of the request. Defaults are the handler's to
// apply.
func filter() openapi3filter.Options {
	o := openapi3filter.Options{
		AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, MultiError: true,
		KeepValidatedValue:  true, // the handler is given what was validated, by its exact names
		SkipSettingDefaults: true,
	}
	o.WithCustomSchemaErrorFunc(func(e *openapi3.SchemaError) string {
		return "/" + strings.Join(e.JSONPointer(), "/") + ": breaks " + e.SchemaField
	})
	return o
}

// validator checks requests against the contract with kin-openapi, as design
// stack.md §0 fact 3 wires it: after authentication and the strict scan.
func validator() echo.MiddlewareFunc {
	options := &mw.Options{
		Options: filter(), SilenceServersWarning: true,
		MultiErrorHandler: func(me openapi3.MultiError) *echo.HTTPError {
			return &echo.HTTPError{Code: http.StatusBadRequest, Internal: me}
		},
	}
	forms := *options
	forms.Options.ExcludeRequestBody = true // readForm has checked it
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			s := stateOf(c.Request().Context())
			if s.operation == nil {
				return next(c)
			}
			by := options
			if s.operation.form != nil {
				by = &forms
			}
			if err := mw.ValidateRequestFromContext(c, routed{}, by); err != nil {
				return validationProblem(s, err)
			}
			return next(c)
		}
	}
}

// validationProblem sorts what the validator found. It says 400 to
// everything; the contract says 400 where the request can't be read, and 422
// where it was read and breaks a rule (design api.md §4).
func validationProblem(s *state, err *echo.HTTPError) error {
	f := findings{state: s}
	f.collect(err.Internal, nil)
	switch {
	case f.unreadable:
		return malformed(s, ruleSyntax, "the body is not the JSON object that is wanted")
	case len(f.parameters) > 0:
		return problem.Of(problem.CodeInvalidParameter).WithFields(firstFields(f.parameters)...)
	case len(f.unknown) > 0:
		return problem.Of(problem.CodeUnknownField).WithFields(firstFields(append(f.unknown, f.fields...))...)
	case len(f.fields) > 0:
		return problem.Of(problem.CodeValidationFailed).WithFields(firstFields(f.fields)...)
	}
	return problem.Of(problem.CodeInternal).WithErr(fmt.Errorf("validator: %w", err.Internal))
}

func firstFields(fields []problem.Field) []problem.Field { return fields[:min(len(fields), maxFields)] }

// findings are what is wrong with a request.
type findings struct {
	*state
	parameters []problem.Field // of headers, path and query
	unknown    []problem.Field // members that the contract doesn't know
	fields     []problem.Field // members that break a rule
	unreadable bool
}

// collect takes apart the errors that kin-openapi nests; in is the parameter
// that they concern, nil for the body.
func (f *findings) collect(err error, in *openapi3.Parameter) {
	switch e := err.(type) { //nolint:errorlint // taken apart level by level on purpose
	case openapi3.MultiError:
		for _, one := range e {
			f.collect(one, in)
		}
	case *openapi3filter.RequestError:
		if in == nil {
			in = e.Parameter
		}
		f.request(e, in)
	case *openapi3.SchemaError:
		f.schema(e, in)
	default:
		f.unreadable = true
	}
}

// checkParameters finds what is wrong with the parameters alone.
func (f *findings) checkParameters(r *http.Request) {
	options := filter()
	in := &openapi3filter.RequestValidationInput{Request: r, PathParams: f.params, Route: f.operation.route, Options: &options}
	for _, list := range []openapi3.Parameters{in.Route.PathItem.Parameters, in.Route.Operation.Parameters} {
		for _, p := range list {
			if err := openapi3filter.ValidateParameter(r.Context(), in, p.Value); err != nil {
				f.collect(err, p.Value)
			}
		}
	}
}

// parameter notes what is wrong with a parameter. Each is named once, however
// many rules it breaks.
func (f *findings) parameter(name string, r rule, bound string) {
	if !slices.ContainsFunc(f.parameters, func(p problem.Field) bool { return p.Pointer == name }) {
		f.parameters = append(f.parameters, field(f.state, name, r, bound))
	}
}

func (f *findings) request(e *openapi3filter.RequestError, in *openapi3.Parameter) {
	var parse *openapi3filter.ParseError
	switch {
	case in != nil && (errors.Is(e.Err, openapi3filter.ErrInvalidRequired) || errors.Is(e.Err, openapi3filter.ErrInvalidEmptyValue)):
		f.parameter(in.Name, ruleRequired, "")
	case in != nil && errors.As(e.Err, &parse):
		f.parameter(in.Name, ruleType, typeName(in.Schema.Value))
	case e.Err != nil:
		f.collect(e.Err, in)
	default:
		f.unreadable = true
	}
}

var unsupported = regexp.MustCompile(`^property (".*") is unsupported$`)

func (f *findings) schema(e *openapi3.SchemaError, in *openapi3.Parameter) {
	if in != nil {
		r, limit := broken(e)
		f.parameter(in.Name, r, limit)
		return
	}
	var at []byte
	for _, token := range e.JSONPointer() {
		at = appendToken(append(at, '/'), token)
	}
	if m := unsupported.FindStringSubmatch(e.Reason); m != nil && e.SchemaField == "properties" {
		name, err := strconv.Unquote(m[1])
		if err != nil {
			name = "?"
		}
		f.unknown = append(f.unknown, field(f.state, string(appendToken(append(at, '/'), name)), ruleUnknownField, ""))
		return
	}
	if f.oneOf(e, string(at)) {
		return
	}
	r, limit := broken(e)
	f.fields = append(f.fields, field(f.state, string(at), r, limit))
}

// oneOf takes apart what is wrong with an object of several shapes, of which a
// member names the one (the discriminator): what that shape says of it.
func (f *findings) oneOf(e *openapi3.SchemaError, at string) bool {
	d := e.Schema.Discriminator
	if d == nil {
		return false
	}
	if e.SchemaField == "discriminator" {
		f.fields = append(f.fields, field(f.state, string(appendToken(append([]byte(at), '/'), d.PropertyName)), ruleEnum, strings.Join(slices.Sorted(maps.Keys(d.Mapping)), ", ")))
		return true
	}
	if _, object := e.Value.(map[string]any); !object {
		f.fields = append(f.fields, field(f.state, at, ruleType, "object"))
		return true
	}
	var shape openapi3.MultiError
	if e.SchemaField != "oneOf" || !errors.As(e.Origin, &shape) || len(shape) != 1 {
		return false
	}
	f.collect(shape[0], nil)
	return true
}

// broken is the rule that a schema error tells of, with the bound that the
// contract sets. It takes nothing from the value.
func broken(e *openapi3.SchemaError) (rule, string) {
	s := e.Schema
	switch e.SchemaField {
	case "required":
		return ruleRequired, ""
	case "type":
		return ruleType, typeName(s)
	case "nullable":
		return ruleNull, ""
	case "pattern":
		return rulePattern, s.Pattern
	case "format":
		return ruleFormat, s.Format
	case "maxLength":
		return ruleTooLong, bound(s.MaxLength)
	case "minLength":
		return ruleTooShort, strconv.FormatUint(s.MinLength, 10)
	case "maxItems":
		return ruleTooMany, bound(s.MaxItems)
	case "minItems":
		return ruleTooFew, strconv.FormatUint(s.MinItems, 10)
	case "maxProperties":
		return ruleTooMany, bound(s.MaxProps)
	case "minProperties":
		return ruleTooFew, strconv.FormatUint(s.MinProps, 10)
	case "maximum":
		return ruleTooLarge, boundOf(s.Max)
	case "minimum":
		return ruleTooSmall, boundOf(s.Min)
	case "uniqueItems":
		return ruleRepeated, ""
	case "enum":
		var allowed []string
		for _, v := range s.Enum {
			allowed = append(allowed, fmt.Sprint(v))
		}
		return ruleEnum, strings.Join(allowed, ", ")
	}
	return ruleInvalid, ""
}

func typeName(s *openapi3.Schema) string {
	if s == nil || s.Type == nil || len(*s.Type) == 0 {
		return "another type"
	}
	return strings.Join(*s.Type, " or ")
}

func bound(n *uint64) string {
	if n == nil {
		return "?"
	}
	return strconv.FormatUint(*n, 10)
}

func boundOf(n *float64) string {
	if n == nil {
		return "?"
	}
	return strconv.FormatFloat(*n, 'f', -1, 64)
}
