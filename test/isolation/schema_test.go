package isolation

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// A place is one member in the JSON body of an operation, however deep: what
// the contract says of it, and a body that has something there.
type place struct {
	way    []string
	schema *openapi3.Schema
	body   any
	needed bool // the object that holds it can't be without it
}

// pointer names the place as problems do (RFC 6901).
func (p place) pointer() string {
	if len(p.way) == 0 {
		return ""
	}
	return "/" + strings.Join(p.way, "/")
}

// with is the body with this value there. Values of type verbatim are written
// as they stand.
func (p place) with(v any) string { return string(marshal(replaced(p.body, p.way, v))) }

type (
	absent   struct{} // no value at all
	verbatim string   // JSON, or what only looks like it
)

func (v verbatim) MarshalJSON() ([]byte, error) { return []byte(v), nil }

func marshal(v any) []byte {
	js, err := json.Marshal(v)
	if err != nil {
		panic(err) // all of it is texts, numbers, and what holds them
	}
	return js
}

// replaced is a copy of v with x at the end of the way.
func replaced(v any, way []string, x any) any {
	if len(way) == 0 {
		return x
	}
	if list, ok := v.([]any); ok {
		list = slices.Clone(list)
		i, _ := strconv.Atoi(way[0])
		list[i] = replaced(list[i], way[1:], x)
		return list
	}
	object := maps.Clone(v.(map[string]any))
	if _, gone := x.(absent); gone && len(way) == 1 {
		delete(object, way[0])
	} else {
		object[way[0]] = replaced(object[way[0]], way[1:], x)
	}
	return object
}

// standsAt is what is at the end of the way, or nil.
func standsAt(v any, way []string) any {
	for _, token := range way {
		switch x := v.(type) {
		case map[string]any:
			v = x[token]
		case []any:
			if i, err := strconv.Atoi(token); err == nil && i < len(x) {
				v = x[i]
				continue
			}
			return nil
		default:
			return nil
		}
	}
	return v
}

// placesIn are all places in the JSON body of an operation, the body itself
// first; none, where it takes no such body.
func placesIn(t testing.TB, op operation) []place {
	t.Helper()
	if op.schema == nil {
		return nil
	}
	var body any
	if err := json.Unmarshal(marshal(op.body), &body); err != nil {
		t.Fatal(err)
	}
	return placesFrom(place{schema: op.schema, body: body})
}

func placesFrom(p place) []place {
	out := []place{p}
	inside := func(in place, token string, of *openapi3.Schema, needed bool) {
		way := append(slices.Clone(p.way), token)
		if standsAt(in.body, way) == nil {
			in.body = replaced(in.body, way, sample(of))
		}
		out = append(out, placesFrom(place{way: way, schema: of, body: in.body, needed: needed})...)
	}
	for _, shape := range p.schema.OneOf { // of which each has members of its own
		one := p
		one.schema, one.body = shape.Value, replaced(p.body, p.way, sample(shape.Value))
		out = append(out, placesFrom(one)[1:]...)
	}
	for _, name := range slices.Sorted(maps.Keys(p.schema.Properties)) {
		inside(p, name, p.schema.Properties[name].Value, slices.Contains(p.schema.Required, name))
	}
	if p.schema.Items != nil {
		one := p
		one.body = replaced(p.body, p.way, []any{sample(p.schema.Items.Value)})
		inside(one, "0", p.schema.Items.Value, false)
	}
	if p.schema.AdditionalProperties.Schema != nil {
		inside(p, "a", p.schema.AdditionalProperties.Schema.Value, false)
	}
	return out
}

// somebodys are texts of which one fits any pattern of the contract that a
// body's member has.
var somebodys = []string{"1", "Tea", "tea@example.com", "2880741500279549033", "020-12345678", "10:00", "9.50", "stores:read", "store.create", "PT1H", "wx5ab0d1c0ffee0a04", "http://mmbiz.qpic.cn/x/0",
	"https://shop.example/", "pages/index/index", strings.Repeat("A1b2", 8), strings.Repeat("A", 43), "mch_01jd7k3v9wf4x8s2m6q0r5t1ya", "ten_01jd7jx5p0f3e4d5c6b7a8n9mp"}

// sample is a value that fits.
func sample(s *openapi3.Schema) any {
	switch {
	case s.Example != nil:
		return s.Example
	case len(s.Enum) > 0:
		return s.Enum[0]
	case len(s.OneOf) > 0:
		return sample(s.OneOf[0].Value)
	case s.Type.Is("object"):
		out := map[string]any{}
		for _, name := range s.Required {
			out[name] = sample(s.Properties[name].Value)
		}
		return out
	case s.Type.Is("array"):
		return []any{sample(s.Items.Value)}
	case s.Type.Is("boolean"):
		return true
	case s.Type.Is("integer"), s.Type.Is("number"):
		if s.Min != nil {
			return *s.Min
		}
		return 1
	case s.Format == "date-time":
		return "2099-01-02T03:04:05Z"
	}
	for _, text := range somebodys {
		if regexp.MustCompile(s.Pattern).MatchString(text) && uint64(len(text)) >= s.MinLength && (s.MaxLength == nil || uint64(len(text)) <= *s.MaxLength) {
			return text
		}
	}
	panic("no text in somebodys fits " + s.Pattern)
}

// wrongTypes are values of every type that the place doesn't take.
func (p place) wrongTypes() map[string]any {
	values := map[string]any{"a text": "1", "a number": 7, "a fraction": 1.5, "a yes": true, "a list": []any{}, "an object": map[string]any{}, "null": nil}
	fits := map[string][]string{"string": {"a text"}, "integer": {"a number"}, "number": {"a number", "a fraction"}, "boolean": {"a yes"}, "array": {"a list"}, "object": {"an object"}}
	types := p.schema.Type.Slice()
	if len(p.schema.OneOf) > 0 {
		types = []string{"object"}
	}
	for _, typ := range types {
		for _, name := range fits[typ] {
			delete(values, name)
		}
	}
	if p.schema.Nullable {
		delete(values, "null")
	}
	return values
}

// brokenRules are values of the right type that break a rule of the place.
func (p place) brokenRules() map[string]any {
	s, out := p.schema, map[string]any{}
	switch {
	case s.Type.Is("string"):
		if len(s.Enum) > 0 {
			out["none of the set"] = "none-of-these"
		}
		if s.MinLength > 0 {
			out["too short"] = strings.Repeat("1", int(s.MinLength)-1)
		}
		if s.MaxLength != nil {
			out["too long"] = strings.Repeat("1", int(*s.MaxLength)+1)
			out["too long, Chinese"] = strings.Repeat("茶", int(*s.MaxLength)+1)
		}
		if s.Format == "date-time" {
			out["no time"] = "yesterday"
			out["no such day"] = "2099-02-30T00:00:00Z"
		}
		if pattern := regexp.MustCompile(s.Pattern); s.Pattern != "" {
			for name, text := range map[string]string{"nothing": "", "a blank": " ", "a line break behind": "10:00\n", "NUL": "a\x00b", "an exclamation": "!", "half a tag": `"><script>`,
				"thousands": strings.Repeat("x", 5000)} {
				if !pattern.MatchString(text) {
					out[name] = text
				}
			}
		}
	case s.Type.Is("integer"), s.Type.Is("number"):
		if s.Min != nil {
			out["too small"] = *s.Min - 1
		}
		if s.Max != nil {
			out["too large"] = *s.Max + 1
			out["much too large"] = verbatim("99999999999999999999")
		}
	case s.Type.Is("array"):
		if s.MinItems > 0 {
			out["too few"] = []any{}
		}
		if s.MaxItems != nil {
			list := make([]any, *s.MaxItems+1)
			for i := range list {
				list[i] = sample(s.Items.Value)
			}
			out["too many"] = list
		}
		if s.UniqueItems {
			out["twice the same"] = []any{sample(s.Items.Value), sample(s.Items.Value)}
		}
	case s.Type.Is("object"):
		if s.MinProps > 0 {
			out["nothing in it"] = map[string]any{}
		}
		if s.MaxProps != nil {
			object := map[string]any{}
			for i := range *s.MaxProps + 1 {
				object["a"+strconv.FormatUint(i, 10)] = "1"
			}
			out["too much in it"] = object
		}
	}
	if p.needed {
		out["left out"] = absent{}
	}
	return out
}
