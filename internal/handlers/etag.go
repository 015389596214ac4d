package handlers

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/mendian/mendian/internal/problem"
)

// ETag names a version of a single resource: the row's version and a hash of
// whatever else its answer depends on (design api.md §3.6).
func ETag(version int64, content []byte) string {
	sum := sha256.Sum256(content)
	return `"` + strconv.FormatInt(version, 10) + "-" + hex.EncodeToString(sum[:4]) + `"`
}

// NotModified reports whether the caller's If-None-Match holds etag, so that
// the answer is 304 (RFC 9110 §13.1.2: compared weakly).
func NotModified(ifNoneMatch *string, etag string) bool {
	if ifNoneMatch == nil {
		return false
	}
	for part := range strings.SplitSeq(*ifNoneMatch, ",") {
		part = strings.TrimSpace(part)
		if part == "*" || strings.TrimPrefix(part, "W/") == etag {
			return true
		}
	}
	return false
}

// IfMatch reads the version that the caller wants to change: nil when it does
// not say, or says "*". An ETag that we can't have given is version_conflict.
//
// The version belongs into the WHERE of the change itself, so that nothing
// comes between; no row then means version_conflict too.
func IfMatch(header *string) (*int64, error) {
	if header == nil || strings.TrimSpace(*header) == "*" {
		return nil, nil
	}
	text, quoted := strings.CutPrefix(strings.TrimSpace(*header), `"`)
	text, closed := strings.CutSuffix(text, `"`)
	digits, hash, found := strings.Cut(text, "-")
	version, err := strconv.ParseInt(digits, 10, 64)
	if !quoted || !closed || !found || len(hash) != 8 || err != nil {
		return nil, problem.Of(problem.CodeVersionConflict)
	}
	return &version, nil
}
