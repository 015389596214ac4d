package wechat

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// baseInfo is the wrapping that stores and changes of stores are written in.
type baseInfo[T any] struct {
	Of T `json:"base_info"`
}

// A shownStore takes both shapes of a store: the documents' examples nest its
// fields in base_info, the table of get_store_list has them flat.
type shownStore struct {
	BaseInfo *Store `json:"base_info"`
	Store
}

func (s shownStore) store() Store {
	if s.BaseInfo != nil {
		return *s.BaseInfo
	}
	return s.Store
}

// A shownLegacyStore is to a legacy store what a shownStore is to a store.
type shownLegacyStore struct {
	BaseInfo *LegacyStore `json:"base_info"`
	LegacyStore
}

func (s shownLegacyStore) store() LegacyStore {
	if s.BaseInfo != nil {
		return *s.BaseInfo
	}
	return s.LegacyStore
}

// stores are those of a list, in WeChat's order.
func stores[S interface{ store() T }, T any](shown []S) []T {
	out := make([]T, len(shown))
	for i, s := range shown {
		out[i] = s.store()
	}
	return out
}

// anyCase reads an object whose members are called goodsId in one call and
// goods_id in another (platform.md §11.1 no. 16) into v, whose tags are of the
// first kind.
func anyCase(b []byte, v any) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(b, &members); err != nil {
		return err
	}
	out := make(map[string]json.RawMessage, len(members))
	for _, name := range slices.Sorted(maps.Keys(members)) {
		out[strings.ToLower(strings.ReplaceAll(name, "_", ""))] = members[name]
	}
	b, err := json.Marshal(out)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// PicList is a list of picture URLs, which WeChat wants as a JSON object
// inside a JSON string: "{\"list\":[…]}".
type PicList []string

type picList struct {
	List []string `json:"list"`
}

// MarshalJSON writes the string.
func (p PicList) MarshalJSON() ([]byte, error) {
	inner, err := Encode(picList{append([]string{}, p...)})
	if err != nil {
		return nil, err
	}
	return Encode(string(inner))
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (p *PicList) UnmarshalJSON(b []byte) error {
	var inner string
	if err := json.Unmarshal(b, &inner); err != nil {
		return err
	}
	var list picList
	if err := json.Unmarshal([]byte(inner), &list); err != nil {
		return err
	}
	*p = list.List
	return nil
}

// Lists that WeChat takes and gives as one string. Each type knows its
// separator, and refuses to write a part that holds it: such a part would come
// out as two.
type (
	// MediaIDs are the ids of temporary files: "id1,id2".
	MediaIDs []string
	// CategoryPath is a category on Tencent Maps: "Food:Chinese Restaurant"
	// (document 000 §4.7).
	CategoryPath []string
	// LegacyCategory is a category of legacy stores: "Food,Sichuan Cuisine,Hotpot"
	// (document 001 §3.2).
	LegacyCategory []string
	// Phones are the numbers of a place on Tencent Maps:
	// "010-6666666-111;010-6666666" (document 000 §4.7).
	Phones []string
	// Texts is a list of strings that WeChat gives as such, or joined with commas.
	Texts []string
)

// MarshalJSON writes one string.
func (l MediaIDs) MarshalJSON() ([]byte, error) { return join(l, ",") }

// UnmarshalJSON takes one string, an array of strings, or null.
func (l *MediaIDs) UnmarshalJSON(b []byte) error { return split(b, ",", (*[]string)(l)) }

// MarshalJSON writes one string.
func (l CategoryPath) MarshalJSON() ([]byte, error) { return join(l, ":") }

// UnmarshalJSON takes one string, an array of strings, or null.
func (l *CategoryPath) UnmarshalJSON(b []byte) error { return split(b, ":", (*[]string)(l)) }

// MarshalJSON writes one string.
func (l LegacyCategory) MarshalJSON() ([]byte, error) { return join(l, ",") }

// UnmarshalJSON takes one string, an array of strings, or null.
func (l *LegacyCategory) UnmarshalJSON(b []byte) error { return split(b, ",", (*[]string)(l)) }

// MarshalJSON writes one string.
func (l Phones) MarshalJSON() ([]byte, error) { return join(l, ";") }

// UnmarshalJSON takes one string, an array of strings, or null.
func (l *Phones) UnmarshalJSON(b []byte) error { return split(b, ";", (*[]string)(l)) }

// UnmarshalJSON takes an array of strings, one string, or null.
func (l *Texts) UnmarshalJSON(b []byte) error {
	list := (*[]string)(l)
	if unmarshalTo(list, b) == nil {
		return nil
	}
	return split(b, ",", list)
}

var errSeparator = errors.New("a part holds the separator")

func join(parts []string, sep string) ([]byte, error) {
	for _, part := range parts {
		if strings.Contains(part, sep) {
			return nil, fmt.Errorf("%w %q", errSeparator, sep)
		}
	}
	return Encode(strings.Join(parts, sep))
}

// split takes the parts of one string, or of the strings of an array, trimmed,
// and none that is empty. So join can write whatever split has read.
func split(b []byte, sep string, into *[]string) error {
	list, err := unmarshal[[]string](b)
	if err != nil {
		joined, err := unmarshal[string](b)
		if err != nil {
			return err
		}
		list = []string{joined}
	}
	*into = nil
	for _, joined := range list {
		for part := range strings.SplitSeq(joined, sep) {
			if part = strings.TrimSpace(part); part != "" {
				*into = append(*into, part)
			}
		}
	}
	return nil
}
