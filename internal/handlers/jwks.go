package handlers

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/mendian/mendian/internal/tenant"
)

// jwksRoute publishes the keys that API keys are signed with (RFC 7517, RFC
// 8037), so that others can check a token's signature. What a key may do only
// this gateway knows.
func (s *Server) jwksRoute(e *echo.Echo) {
	e.GET("/.well-known/jwks.json", func(c echo.Context) error {
		keys, err := s.Keys.JWKS(c.Request().Context())
		if err != nil {
			return err
		}
		// The next key is published long before it signs, so this may be kept for a while.
		c.Response().Header().Set("Cache-Control", "public, max-age=300")
		return c.JSON(http.StatusOK, struct {
			Keys []tenant.JWK `json:"keys"`
		}{keys})
	})
}
