// Package reference serves what WeChat publishes for everybody: the tree of
// provinces, cities and districts, and the categories of the Store Mini
// Program. Both change a few times a year and are thousands of rows, so they
// are kept for a day, and shown beyond it, marked stale, when WeChat can't be
// asked.
//
// What one tenant's merchant was told is never shown to another tenant.
package reference

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"time"

	"github.com/google/uuid"
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/memory"
	"github.com/mendian/mendian/internal/observe"
	"github.com/mendian/mendian/internal/wechat"
)

const (
	freshFor = 24 * time.Hour
	// retryAfter is how long a stale answer is given without asking again.
	retryAfter = time.Minute
	// tenantsKept bounds memory: a tree is about a megabyte.
	tenantsKept = 64
)

// A District is a province (level 1), city (2) or district (3). Level 3 has
// neither Name nor Pinyin.
type District struct {
	ID, ParentID, Name, FullName string
	Pinyin                       []string
	Latitude, Longitude          string
	Level                        int
}

// A Category is one of the Store Mini Program, level 1 or 2, or one of legacy
// stores, which has a path, its last name and its level alone.
type Category struct {
	ID, ParentID, Name   string
	Level                int
	Children             []string
	Path                 []string   // names from level 1 down to this one
	Sensitive            bool       // certificates are required
	RequiredCertificates [][]string // any one list will do; all names in it are wanted
	Scene                *int32
}

// A Tree is a whole tree as WeChat gave it, in its order.
type Tree[T any] struct {
	Rows    []T
	Version string // changes when the rows do
	At      time.Time
	Stale   bool
}

// Reference is safe for concurrent use.
type Reference struct {
	auth       *authorizer.Authorizer
	districts  *kept[District]
	categories *kept[Category]
	legacy     *kept[Category]
}

// New makes a Reference that asks through auth.
func New(auth *authorizer.Authorizer) *Reference {
	return &Reference{auth: auth, districts: newKept[District](), categories: newKept[Category](), legacy: newKept[Category]()}
}

// Districts is the whole tree (document 000 §4.5), read with m's token where
// it isn't at hand.
func (r *Reference) Districts(ctx context.Context, m authorizer.Merchant) (Tree[District], error) {
	return r.districts.get(ctx, m.TenantID, func(ctx context.Context) (Tree[District], error) {
		reply, err := authorizer.Call[wechat.GetDistrictReply](ctx, r.auth, m, wechat.GetDistrict, nil, nil)
		if err != nil {
			return Tree[District]{}, err
		}
		rows := districts(reply)
		return Tree[District]{Rows: rows, Version: version(string(reply.DataVersion), rows), At: time.Now().UTC()}, nil
	})
}

// Categories is the whole tree but its root (document 000 §4.1).
func (r *Reference) Categories(ctx context.Context, m authorizer.Merchant) (Tree[Category], error) {
	return r.categories.get(ctx, m.TenantID, func(ctx context.Context) (Tree[Category], error) {
		reply, err := authorizer.Call[wechat.GetMerchantCategoryReply](ctx, r.auth, m, wechat.GetMerchantCategory, nil, nil)
		if err != nil {
			return Tree[Category]{}, err
		}
		rows := categories(reply)
		return Tree[Category]{Rows: rows, Version: version("", rows), At: time.Now().UTC()}, nil
	})
}

// LegacyCategories are the categories of legacy stores (document 001 §4).
func (r *Reference) LegacyCategories(ctx context.Context, m authorizer.Merchant) (Tree[Category], error) {
	return r.legacy.get(ctx, m.TenantID, func(ctx context.Context) (Tree[Category], error) {
		reply, err := authorizer.Call[wechat.GetWXCategoryReply](ctx, r.auth, m, wechat.GetWXCategory, nil, nil)
		if err != nil {
			return Tree[Category]{}, err
		}
		var rows []Category
		for _, path := range reply.CategoryList {
			if len(path) > 0 {
				rows = append(rows, Category{Name: path[len(path)-1], Level: len(path), Path: path})
			}
		}
		return Tree[Category]{Rows: rows, Version: version("", rows), At: time.Now().UTC()}, nil
	})
}

// districts rebuilds the tree from cidx, the first and last index of a row's
// children in the next level.
func districts(reply wechat.GetDistrictReply) []District {
	parents := make([]map[int]string, len(reply.Result)+1)
	for level, rows := range reply.Result {
		parents[level+1] = map[int]string{}
		for _, d := range rows {
			if len(d.Cidx) != 2 || level+1 >= len(reply.Result) {
				continue
			}
			last := min(int(d.Cidx[1]), len(reply.Result[level+1])-1)
			for i := max(int(d.Cidx[0]), 0); i <= last; i++ {
				parents[level+1][i] = string(d.ID)
			}
		}
	}
	var out []District
	for level, rows := range reply.Result {
		for i, d := range rows {
			out = append(out, District{ID: string(d.ID), ParentID: parents[level][i], Name: d.Name, FullName: d.Fullname, Pinyin: d.Pinyin,
				Latitude: string(d.Location.Lat), Longitude: string(d.Location.Lng), Level: level + 1})
		}
	}
	return out
}

func categories(reply wechat.GetMerchantCategoryReply) []Category {
	var out []Category
	for _, c := range reply.Data.AllCategoryInfo.Categories {
		if c.ID == 0 {
			continue
		}
		row := Category{ID: strconv.FormatInt(int64(c.ID), 10), Name: c.Name, Level: int(c.Level), Sensitive: c.SensitiveType == 1}
		if c.Father != 0 {
			row.ParentID = strconv.FormatInt(int64(c.Father), 10)
		}
		for _, child := range c.Children {
			row.Children = append(row.Children, strconv.FormatInt(int64(child), 10))
		}
		for _, outer := range c.Qualify.ExterList {
			var names []string
			for _, inner := range outer.InnerList {
				names = append(names, inner.Name)
			}
			row.RequiredCertificates = append(row.RequiredCertificates, names)
		}
		if c.Scene != 0 {
			row.Scene = new(int32(c.Scene))
		}
		out = append(out, row)
	}
	byID := map[string]Category{}
	for _, c := range out {
		byID[c.ID] = c
	}
	for i := range out {
		// Bounded by the level: WeChat's list may name a parent in a circle.
		for c, n := out[i], out[i].Level; c.ID != "" && n > 0; c, n = byID[c.ParentID], n-1 {
			out[i].Path = append([]string{c.Name}, out[i].Path...)
		}
	}
	return out
}

func version[T any](given string, rows []T) string {
	b, err := json.Marshal(rows)
	if err != nil {
		panic(err) // strings and numbers only
	}
	sum := sha256.Sum256(append([]byte(given+"\n"), b...))
	return hex.EncodeToString(sum[:8])
}

// kept holds one tree a tenant.
type kept[T any] struct {
	trees *lru.Cache[uuid.UUID, Tree[T]]
	tried *lru.Cache[uuid.UUID, time.Time]
	loads singleflight.Group
}

func newKept[T any]() *kept[T] {
	return &kept[T]{
		trees: memory.New[uuid.UUID, Tree[T]](tenantsKept),
		tried: memory.New[uuid.UUID, time.Time](tenantsKept),
	}
}

func (k *kept[T]) get(ctx context.Context, tenant uuid.UUID, load func(context.Context) (Tree[T], error)) (Tree[T], error) {
	old, have := k.trees.Get(tenant)
	if have && time.Since(old.At) < freshFor {
		return old, nil
	}
	if failed, ok := k.tried.Get(tenant); have && ok && time.Since(failed) < retryAfter {
		old.Stale = true
		return old, nil
	}
	ch := k.loads.DoChan(tenant.String(), func() (any, error) {
		// Not the first caller's context: others wait for the same answer.
		var t Tree[T]
		err := observe.Caught(func() (err error) { t, err = load(context.WithoutCancel(ctx)); return err })
		if err == nil {
			k.trees.Add(tenant, t)
		} else {
			k.tried.Add(tenant, time.Now())
		}
		return t, err
	})
	select {
	case <-ctx.Done():
		return Tree[T]{}, ctx.Err()
	case r := <-ch:
		if r.Err != nil && have {
			old.Stale = true
			return old, nil
		}
		if r.Err != nil {
			return Tree[T]{}, r.Err
		}
		return r.Val.(Tree[T]), nil
	}
}
