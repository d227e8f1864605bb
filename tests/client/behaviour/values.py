"""Values to store."""

from typing import Any

USAGE = {
    "inputTokens": 1,
    "outputTokens": 2,
    "reasoningTokens": 0,
    "totalTokens": 3,
    "cachedInputTokens": 0,
}


def job(name: str, started_at: float = 1000) -> dict[str, Any]:
    return {
        "id": name,
        "status": "running",
        "coordinatorExpertKey": "@acme/writer@1.0.0",
        "totalSteps": 0,
        "usage": USAGE,
        "startedAt": started_at,
    }


def checkpoint(job_id: str, name: str, step: int = 1) -> dict[str, Any]:
    return {
        "id": name,
        "jobId": job_id,
        "runId": "r",
        "status": "proceeding",
        "stepNumber": step,
        "messages": [],
        "expert": {"key": "@acme/writer@1.0.0", "name": "@acme/writer", "version": "1.0.0"},
        "usage": USAGE,
    }


def setting(job_id: str, run: str = "r", updated_at: float = 1000) -> dict[str, Any]:
    return {
        "model": "m",
        "providerConfig": {"providerName": "anthropic", "apiKey": "secret"},
        "jobId": job_id,
        "runId": run,
        "expertKey": "@acme/writer@1.0.0",
        "input": {"text": "hello"},
        "experts": {},
        "maxRetries": 3,
        "timeout": 60000,
        "startedAt": 1000,
        "updatedAt": updated_at,
        "perstackApiBaseUrl": "https://api.perstack.ai",
        "env": {},
    }


def event(job_id: str, number: int, **fields: Any) -> dict[str, Any]:
    """Eight in a row are of one millisecond, step and type: only the order tells them apart."""
    return {
        "type": "streamReasoning",
        "id": f"e{number}",
        "expertKey": "@acme/writer@1.0.0",
        "timestamp": 1795406152251 + number // 8,
        "jobId": job_id,
        "runId": "r",
        "stepNumber": 1,
        "n": number,
        **fields,
    }
