package tenant

import (
	"context"
	"errors"
	"time"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/secret"
)

// wrap says what was being done, and turns what is left of a database that
// doesn't answer into storage_unavailable.
func wrap(err *error, format string, args ...any) {
	_, known := problem.As(*err)
	switch {
	case *err == nil, known, postgres.Refused(*err), postgres.IsNotFound(*err), errors.Is(*err, context.Canceled),
		errors.Is(*err, ErrNoSigningKey), errors.Is(*err, errNoActor):
	case errors.Is(*err, secret.ErrSealed):
		*err = problem.Of(problem.CodeSecretUnavailable).WithErr(*err)
	default:
		*err = unavailable(*err)
	}
	problem.Wrap(err, format, args...)
}

// unavailable is the answer when nobody can say now.
func unavailable(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	p := problem.Of(problem.CodeStorageUnavailable).WithErr(err)
	p.RetryAfter = time.Second
	return p
}
