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

	"github.com/mendian/mendian/internal/problem"
)

// filter is how kin-openapi checks requests: with all errors at once, and with
// messages that hold nothing of the request. Defaults are the handler's to
// apply.
var filter = func() *openapi3filter.Options {
	o := &openapi3filter.Options{
		MultiError:          true,
		KeepValidatedValue:  true, // the handler is given what was validated, by its exact names
		SkipSettingDefaults: true,
	}
	o.WithCustomSchemaErrorFunc(func(e *openapi3.SchemaError) string {
		return "/" + strings.Join(e.JSONPointer(), "/") + ": breaks " + e.SchemaField
	})
	return o
}()

// validate checks a request against the contract with kin-openapi, as design
// stack.md §0 fact 3 has it: after authentication and the strict scan. A form
// was checked when it was read.
func (o *operation) validate(s *state, r *http.Request) error {
	f := findings{state: s}
	f.checkParameters(r)
	if o.hasBody && o.form == nil {
		body := o.route.Operation.RequestBody.Value
		if err := openapi3filter.ValidateRequestBody(r.Context(), s.validation(r), body); err != nil {
			f.collect(err, nil)
		}
	}
	return f.problem()
}

// validation is what kin-openapi has to know of a request.
func (s *state) validation(r *http.Request) *openapi3filter.RequestValidationInput {
	return &openapi3filter.RequestValidationInput{Request: r, PathParams: s.params, QueryParams: s.query, Route: s.operation.route, Options: filter}
}

func firstFields(fields []problem.Field) []problem.Field { return fields[:min(len(fields), maxFields)] }

// findings are what is wrong with a request.
type findings struct {
	*state
	parameters []problem.Field // of headers, path and query
	unknown    []problem.Field // members that the contract doesn't know
	fields     []problem.Field // members that break a rule
	unreadable bool
	err        error // of the validator, the last
}

// collect takes apart the errors that kin-openapi nests; in is the parameter
// that they concern, nil for the body.
func (f *findings) collect(err error, in *openapi3.Parameter) {
	f.err = err
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

// problem sorts what was found. The contract says 400 where the request can't
// be read, and 422 where it was read and breaks a rule (design api.md §4).
func (f *findings) problem() error {
	switch {
	case f.unreadable:
		return malformed(f.state, ruleSyntax, "the body is not the JSON object that is wanted")
	case len(f.parameters) > 0:
		return problem.Of(problem.CodeInvalidParameter).WithFields(firstFields(f.parameters)...)
	case len(f.unknown) > 0:
		return problem.Of(problem.CodeUnknownField).WithFields(firstFields(append(f.unknown, f.fields...))...)
	case len(f.fields) > 0:
		return problem.Of(problem.CodeValidationFailed).WithFields(firstFields(f.fields)...)
	case f.err != nil:
		return problem.Of(problem.CodeInternal).WithErr(fmt.Errorf("validator: %w", f.err))
	}
	return nil
}

// checkParameters finds what is wrong with the parameters alone. Of those that
// may be left out and were, which are nearly all, nothing can be.
func (f *findings) checkParameters(r *http.Request) {
	var in *openapi3filter.RequestValidationInput
	for _, p := range f.operation.parameters {
		if !p.Required && !f.sent(r, p) {
			continue
		}
		if in == nil {
			in = f.validation(r)
		}
		if err := openapi3filter.ValidateParameter(r.Context(), in, p); err != nil {
			f.collect(err, p)
		}
	}
}

// sent reports whether a request has a parameter.
func (s *state) sent(r *http.Request, p *openapi3.Parameter) (is bool) {
	switch p.In {
	case openapi3.ParameterInQuery:
		_, is = s.query[p.Name]
	case openapi3.ParameterInHeader:
		_, is = r.Header[http.CanonicalHeaderKey(p.Name)]
	default:
		is = true
	}
	return is
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
