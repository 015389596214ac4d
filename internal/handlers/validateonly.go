package handlers

import (
	"context"
	"net/http"
	"strconv"

	"github.com/labstack/echo/v4"

	"github.com/mendian/mendian/internal/handlers/oapi"
)

// ?validate_only=true on a write runs everything up to the call to WeChat, and
// does nothing (design api.md §3.3). An operation has it by declaring the
// parameter: request passes it on to the ledger, which answers ErrValid in the
// place of an outcome, and the edge turns that into the answer.

const validateOnlyParameter = "validate_only"

// validateOnly reads the parameter just as the validator and the generated
// code do, which refuse what isn't a boolean after this.
func (o *operation) validateOnly(c echo.Context) bool {
	if !o.query[validateOnlyParameter] {
		return false
	}
	given, err := strconv.ParseBool(c.QueryParam(validateOnlyParameter))
	return err == nil && given
}

// validateOnly reports whether the request of ctx only asks whether it would
// be taken.
func validateOnly(ctx context.Context) bool { return stateOf(ctx).validate }

// warn adds to the answer of a validation what we would let pass and WeChat
// may refuse. A request that is carried out has no use for it.
func warn(ctx context.Context, pointer string, r rule, bound string) {
	if s := stateOf(ctx); s.validate {
		s.warnings = append(s.warnings, field(s, pointer, r, bound))
	}
}

// answerValid answers a request that was only to be validated, and could be
// carried out.
func answerValid(c echo.Context, s *state) error {
	out := oapi.Validation{Valid: true, Warnings: make([]oapi.ProblemField, 0, len(s.warnings))}
	for _, f := range firstFields(s.warnings) {
		out.Warnings = append(out.Warnings, oapi.ProblemField{Pointer: f.Pointer, Code: f.Code, Detail: f.Detail})
	}
	h := c.Response().Header()
	h.Set("Content-Language", s.language())
	h.Add("Vary", "Accept-Language")
	return c.JSON(http.StatusOK, out)
}
