package reason

// apiReasons are problem types of the HTTP API. Their sentence is the detail
// where a handler has nothing more exact to say.
func apiReasons() []Reason {
	return append(append(requestReasons(), accessReasons()...), stateReasons()...)
}

// requestReasons: the request itself is wrong, whatever the state of things.
func requestReasons() []Reason {
	return []Reason{
		{
			Slug: InvalidRequest, Stages: []Stage{StageAPI},
			Title:       "Invalid request",
			Sentence:    "The request breaks a rule of the contract",
			Explanation: "The list of errors names each field, the rule it breaks and, where there is a list, the choices.",
			HTTPStatus:  400,
			Scope:       ScopeTenant, Exit: ExitUsage,
		},
		{
			Slug: MethodNotAllowed, Stages: []Stage{StageAPI},
			Title:       "Method not allowed",
			Sentence:    "This path does not know the method",
			Explanation: "The contract lists the methods of each path.",
			HTTPStatus:  405,
			Scope:       ScopeTenant, Exit: ExitUsage,
		},
		{
			Slug: NotAcceptable, Stages: []Stage{StageAPI},
			Title:       "Not acceptable",
			Sentence:    "None of the accepted media types is available",
			Explanation: "The contract lists the media types of each response.",
			HTTPStatus:  406,
			Scope:       ScopeTenant, Exit: ExitUsage,
		},
		{
			Slug: BodyTooLarge, Stages: []Stage{StageAPI},
			Title:       "Body too large",
			Sentence:    "The request body is larger than the {limit} bytes allowed",
			Explanation: "Split the request, for example a batch into several.",
			HTTPStatus:  413,
			Scope:       ScopeTenant, Exit: ExitUsage,
		},
		{
			Slug: URITooLong, Stages: []Stage{StageAPI},
			Title:       "Address too long",
			Sentence:    "The request address is too long",
			Explanation: "Send fewer or shorter query parameters.",
			HTTPStatus:  414,
			Scope:       ScopeTenant, Exit: ExitUsage,
		},
		{
			Slug: UnsupportedMediaType, Stages: []Stage{StageAPI},
			Title:       "Unsupported media type",
			Sentence:    "The media type of the request body is not supported",
			Explanation: "The contract lists the media types of each request.",
			HTTPStatus:  415,
			Scope:       ScopeTenant, Exit: ExitUsage,
		},
		{
			Slug: HeaderTooLarge, Stages: []Stage{StageAPI},
			Title:       "Header too large",
			Sentence:    "The request header is too large",
			Explanation: "Send fewer or shorter header fields.",
			HTTPStatus:  431,
			Scope:       ScopeTenant, Exit: ExitUsage,
		},
	}
}

// accessReasons: who asks may not have it, or not in this time.
func accessReasons() []Reason {
	return []Reason{
		{
			Slug: Unauthenticated, Stages: []Stage{StageAPI},
			Title:       "Not authenticated",
			Sentence:    "A valid token is required",
			Explanation: "The token is missing, unknown, expired or revoked. Send `Authorization: Bearer rly_…`.",
			HTTPStatus:  401,
			Scope:       ScopeTenant, Exit: ExitAuth,
		},
		{
			Slug: Forbidden, Stages: []Stage{StageAPI},
			Title:       "Not allowed",
			Sentence:    "The token does not allow this operation",
			Explanation: "The token is good, but its role or scopes do not cover the operation.",
			HTTPStatus:  403,
			Scope:       ScopeTenant, Exit: ExitAuth,
		},
		{
			Slug: NotFound, Stages: []Stage{StageAPI},
			Title:       "Not found",
			Sentence:    "There is no such object",
			Explanation: "The object does not exist, or is not one that the token may see.",
			HTTPStatus:  404,
			Scope:       ScopeTenant, Exit: ExitNotFound,
		},
		{
			Slug: RequestTimeout, Stages: []Stage{StageAPI},
			Title:       "Request took too long",
			Sentence:    "The request did not arrive in time",
			Explanation: "The request body came in too slowly.",
			HTTPStatus:  408,
			Retry:       true, Scope: ScopeTenant, Exit: ExitUnavailable,
		},
	}
}

// stateReasons: the request is in order but does not fit the state of things.
func stateReasons() []Reason {
	return append(conflictReasons(), versionReasons()...)
}

func conflictReasons() []Reason {
	return []Reason{
		{
			Slug: Conflict, Stages: []Stage{StageAPI},
			Title:       "Conflict",
			Sentence:    "The request conflicts with the present state of the object",
			Explanation: "Read the object again; the detail says what stands in the way.",
			HTTPStatus:  409,
			Scope:       ScopeTenant, Exit: ExitConflict,
		},
		{
			Slug: DomainUnavailable, Stages: []Stage{StageAPI},
			Title:       "Domain not available",
			Sentence:    "This domain cannot be registered here",
			Explanation: "A domain belongs to one partner of the platform. If it is yours, ask the provider to clear its ownership.",
			HTTPStatus:  409,
			Scope:       ScopeTenant, Exit: ExitConflict,
		},
		{
			Slug: ComplaintUnresolved, Stages: []Stage{StageAPI},
			Title:       "Complaint names no message of ours",
			Sentence:    "The complaint does not name a message that was relayed here",
			Explanation: "The reported message carries no token of this platform, or one that was changed.",
			HTTPStatus:  422,
			Scope:       ScopeTenant, Exit: ExitUsage,
		},
		{
			Slug: IdempotencyConflict, Stages: []Stage{StageAPI},
			Title:       "Idempotency key used for another request",
			Sentence:    "This Idempotency-Key was used with another request",
			Explanation: "Use a new key for each new request; keep the key only when repeating the same one.",
			HTTPStatus:  409,
			Scope:       ScopeTenant, Exit: ExitConflict,
		},
		{
			Slug: IdempotencyInProgress, Stages: []Stage{StageAPI},
			Title:       "Request in progress",
			Sentence:    "A request with this Idempotency-Key is still running",
			Explanation: "Repeat the request a little later to get its result.",
			HTTPStatus:  409,
			Retry:       true, Scope: ScopeTenant, Exit: ExitConflict,
		},
	}
}

func versionReasons() []Reason {
	return []Reason{
		{
			Slug: EdgeFenced, Stages: []Stage{StageAPI},
			Title:       "Edge fenced",
			Sentence:    "The counters or the boot of this edge do not continue what it reported before",
			Explanation: "The edge was copied or set back. It starts a new generation, and its old leases are written off.",
			HTTPStatus:  409,
			Scope:       ScopeTenant, Exit: ExitConflict,
		},
		{
			Slug: PolicyGone, Stages: []Stage{StageAPI},
			Title:       "Policy history gone",
			Sentence:    "The policy history from this point is gone; start again from the beginning",
			Explanation: "The edge was away too long, or the control plane was restored. The edge starts again by itself.",
			HTTPStatus:  410,
			Scope:       ScopeTenant, Exit: ExitConflict,
		},
		{
			Slug: PreconditionFailed, Stages: []Stage{StageAPI},
			Title:       "Changed meanwhile",
			Sentence:    "The object was changed since it was read",
			Explanation: "Read the object again, look at the change, and send the new ETag.",
			HTTPStatus:  412,
			Scope:       ScopeTenant, Exit: ExitConflict,
		},
		{
			Slug: PreconditionRequired, Stages: []Stage{StageAPI},
			Title:       "Condition required",
			Sentence:    "This operation requires If-Match",
			Explanation: "Read the object and send its ETag in If-Match.",
			HTTPStatus:  428,
			Scope:       ScopeTenant, Exit: ExitConflict,
		},
		{
			Slug: Unavailable, Stages: []Stage{StageAPI},
			Title:       "Unavailable",
			Sentence:    "The service is not available just now; try again later",
			Explanation: "The database or another part of the control plane does not answer. Repeat the request after Retry-After.",
			HTTPStatus:  503,
			Retry:       true, Scope: ScopePlatform, Exit: ExitUnavailable,
		},
	}
}
