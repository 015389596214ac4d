// Package wechat says what WeChat is: every call as one declared value with
// its method, path, permission sets, risk and error family, the shapes of its
// requests and replies, and how an answer is to be read.
//
// It knows no tenant and no database, decides nothing about retries, and
// imports nothing of ours. A token goes onto the wire inside the transport
// and must never reach an error, a log line or a URL that somebody prints.
package wechat

import (
	"slices"
	"time"
)

// A Family is a group of calls that share the meaning of their error codes:
// the same number means different things in different families.
type Family string

// The families.
const (
	FamilyComponent        Family = "component"
	FamilyMerchantCategory Family = "merchant_category"
	FamilyStoreProgram     Family = "store_program"
	FamilyMapPOI           Family = "map_poi"
	FamilyStore            Family = "store"
	FamilyLegacyStore      Family = "legacy_store"
	FamilyGoods            Family = "goods"
	FamilyMedia            Family = "media"
	FamilyCard             Family = "card"
	FamilyDistrict         Family = "district"
	FamilyMessage          Family = "message"
	FamilyQuota            Family = "quota"
)

// A Risk says what a second execution of a call would do, and so how an
// unknown outcome may be resolved (design api.md §5.16).
type Risk uint8

// The risk classes R0 to R4.
const (
	Read        Risk = iota // R0
	Overwrite               // R1: the same call again changes nothing
	SelfFencing             // R2: WeChat refuses the second one
	Create                  // R3: the second one makes a second thing
	Harmless                // R4: a duplicate does no harm
)

// An Endpoint is one call of WeChat's API. Endpoints are declared once, as
// package variables, each citing its document.
type Endpoint struct {
	Name     string // "store.add": in metrics, problems and logs, instead of a URL
	Method   string
	Path     string
	Sets     []int // permission sets, any one of which opens the call; nil: none is needed
	Family   Family
	Risk     Risk
	Quota    Bucket        // what a call is charged to; the zero Bucket: nothing
	Part     string        // not "": the body is a file, sent as this part of a form
	Timeout  time.Duration // of the whole call; 0: 10 s
	MaxReply int64         // bytes; 0: 1 MiB
	envelope envelope
	proof    string // a member without which a success is none; "": none is needed
	// whole reads a reply in one pass, where that is worth it; nil: its answer
	// is read first, and what it holds by Decode.
	whole func(body []byte) (answer, any, error)
}

// A Bucket is a number of calls that WeChat allows a merchant in a day of
// Shanghai. Calls that share a Bucket share its limit.
type Bucket struct {
	Name   string
	PerDay int
}

const (
	defaultTimeout  = 10 * time.Second
	defaultMaxReply = 1 << 20
)

// Deadline is the time that a call of e may take.
func (e *Endpoint) Deadline() time.Duration {
	if e.Timeout != 0 {
		return e.Timeout
	}
	return defaultTimeout
}

func (e *Endpoint) maxReply() int64 {
	if e.MaxReply != 0 {
		return e.MaxReply
	}
	return defaultMaxReply
}

// Opens reports whether an authorisation that grants these permission sets
// may make the call.
func (e *Endpoint) Opens(granted []int32) bool {
	return len(e.Sets) == 0 || slices.ContainsFunc(e.Sets, func(s int) bool { return slices.Contains(granted, int32(s)) })
}

// Permission sets that WeChat's pages print as "8-10、13": once authorised
// with one of them, the platform may call (platform.md §8.1). Legacy stores,
// cards, modify_merchant and del_store have no set stated and are enforced as
// storeSets (§8.2): WeChat's own 61007 or 48001 stays authoritative.
var (
	storeSets          = []int{8, 9, 10, 13}
	storeNearbySets    = []int{8, 9, 10, 13, 37}
	goodsSets          = []int{52}
	imageSets          = []int{1, 8, 9, 11, 18, 37, 100}
	temporaryMediaSets = []int{1, 3, 8, 9, 11, 19, 30, 31, 100}
)
